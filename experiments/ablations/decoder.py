"""How long must the attention window of the tokenizer's causal decoder be?

    python -m experiments.run decoder

Answer: not run. At scale nano about 9 runs of an hour on one GPU. The released window is 72 frames
of 80 ms. A decoder that looks ahead is not among the variations: that of the 12 Hz family is
causal.
"""

WINDOW = "tokenizer.decoder.transformer.window"
VARIATIONS = {f"{frames} frames": {WINDOW: frames} for frames in (72, 24, 8)}
