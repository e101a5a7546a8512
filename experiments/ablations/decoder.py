"""How long must the attention window of the tokenizer's causal decoder be?

    python -m experiments.run decoder

Answer: at scale tiny (3 seeds, `experiments/results/ablations/tiny/decoder.md`) windows of 72 and 8
frames are one: STOI 0.489 [0.454, 0.517] both, since training decodes 4 frames of a row and longer
windows are untrained; 2 frames: 0.476 [0.445, 0.503]. Scale nano: 9 runs of 75 minutes on one H100,
11 hours. The released window is 72 frames of 80 ms; training decodes 8 frames of a row at scale
nano. A decoder that looks ahead is not among the variations: that of the 12 Hz family is causal.
"""

WINDOW = "tokenizer.decoder.transformer.window"
VARIATIONS = {f"{frames} frames": {WINDOW: frames} for frames in (72, 8, 2)}
