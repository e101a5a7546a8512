"""Pretrained metric models ("judges"), each read from its package; nothing is downloaded."""
