"""Blocks built from layers; each is used by more than one model."""
