"""Is a frame rate of 12.5 Hz with 16 codebooks better than 25 Hz with 8, at one bit rate?

    python -m experiments.run rate

Answer: not run at a scale that answers it. `results/ablations/tiny/rate.md` shows that the
machinery works. At scale nano about 6 runs of an hour on one GPU. The third arm of the question,
25 Hz with one codebook and a flow-matching decoder, waits for the training task of the 25 Hz
tokenizer. Clips of the 12.5 Hz arm are two sentences long, so that both arms have as many frames a
clip and as much speech a step.
"""

from experiments.runner.recipe import codebooks, strides_25hz

VARIATIONS = {
    "12.5 Hz x 16": codebooks(16) | {"sentences_per_clip": 2},
    "25 Hz x 8": codebooks(8) | strides_25hz(),
}
