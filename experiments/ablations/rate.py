"""Is a frame rate of 12.5 Hz with 16 codebooks better than 25 Hz with 8, at one bit rate?

    python -m experiments.run rate

Answer: at scale small (3 seeds, `experiments/results/ablations/small/rate.md`) no: the two
resynthesise alike, and the talker of 25 Hz with 8 codebooks reads better, 28.6 [15.8, 43.4] % of
the words wrong against 73.9 [60.9, 86.9], after 16,000 steps. That may be the speed of learning:
neither reads well yet. At scale tiny, after a minute of training, the STOI of 25 Hz is better by
0.062 [0.029, 0.092]. Scale nano: 6 runs of 75 minutes on one H100, 7.5 hours, for the first two
arms. The third is the other family: 25 Hz with one codebook, a flow-matching decoder and a vocoder,
at a sixth of the bit rate. Its four stages have 480 steps in all and 15 times the FLOPs of the
first at scale tiny, and no discriminators; at scale small 4,000 steps of each took 8 minutes of an
H200 that other runs shared. Clips of the 12.5 Hz talker are two sentences long, so that all arms
have as many frames a clip and as much speech a step; it speaks two at once, and the others twice
one.
"""

from experiments.runner.recipe import codebooks, flow_25hz, strides_25hz

SCORED = {"sentences_scored": 2}
VARIATIONS = {
    "12.5 Hz x 16": codebooks(16) | {"sentences_per_clip": 2} | SCORED,
    "25 Hz x 8": codebooks(8) | strides_25hz() | SCORED,
    "25 Hz x 1": flow_25hz() | SCORED,
}
