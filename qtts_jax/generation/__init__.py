"""Autoregressive generation of codes: prompts, sampling, one frame, loops over frames."""
