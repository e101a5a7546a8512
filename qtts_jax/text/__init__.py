"""Text to token ids: byte-pair encoding, Unicode normalisation, and words as they are spoken."""
