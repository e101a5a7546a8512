"""Training of the 25 Hz tokenizer: encoder with codebook, flow-matching decoder, vocoder."""
