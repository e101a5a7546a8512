"""Pretrained judges, each read from the package that carries it; nothing is downloaded."""
