"""Persistent CUDA kernels for Hopper GPUs and how they get into a jitted program."""
