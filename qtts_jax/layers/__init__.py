"""Leaf maths: every layer is a small NNX module that holds parameters only."""
