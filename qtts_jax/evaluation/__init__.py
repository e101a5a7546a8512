"""Scores of codecs and voices: judges, signal measures, tasks and reports."""
