"""How long must the attention window of the tokenizer's causal decoder be?

    python -m experiments.run decoder

Answer: not run yet. Scale nano: 9 runs of 75 minutes on one H100, 11 hours. The released window is
72 frames of 80 ms, but training decodes 8 frames of a row at scale nano, so longer windows are
untrained there. A decoder that looks ahead is not among the variations: that of the 12 Hz family is
causal.
"""

WINDOW = "tokenizer.decoder.transformer.window"
VARIATIONS = {f"{frames} frames": {WINDOW: frames} for frames in (72, 8, 2)}
