"""Is a frame rate of 12.5 Hz with 16 codebooks better than 25 Hz with 8, at one bit rate?

    python -m experiments.run rate

Answer: at scale tiny (3 seeds, `experiments/results/ablations/tiny/rate.md`) 25 Hz with 8 codebooks
is the better tokenizer: STOI 0.062 [0.029, 0.092] above that of 12.5 Hz with 16, at one bit rate,
after a minute of training each. Whether talkers speak better is open: at this size their words are
not scored. Scale nano: 6 runs of 75 minutes on one H100, 7.5 hours, for the first two arms.
The third is the other family: 25 Hz with one codebook, a flow-matching decoder and a vocoder, at a
sixth of the bit rate. Its four stages have 480 steps in all and 15 times the FLOPs of the first at
scale tiny, and no discriminators; its time at scale nano is not measured. Clips of the 12.5 Hz
talker are two sentences long, so that all arms have as many frames a clip and as much speech a
step.
"""

from experiments.runner.recipe import codebooks, flow_25hz, strides_25hz

SCORED = {"sentences_scored": 2}
VARIATIONS = {
    "12.5 Hz x 16": codebooks(16) | {"sentences_per_clip": 2} | SCORED,
    "25 Hz x 8": codebooks(8) | strides_25hz() | SCORED,
    "25 Hz x 1": flow_25hz() | SCORED,
}
