"""Training of the 12 Hz speech tokenizer against discriminators."""
