"""Scores of codecs and voices: metric models (judges), signal measures, tasks and reports."""
