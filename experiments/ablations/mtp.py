"""How deep must the code predictor (the MTP head) be, and must its codes depend on one another?

    python -m experiments.run mtp

Answer: at scale small (3 seeds, `experiments/results/ablations/small/mtp.md`) depth hardly matters:
1 layer loses 0.19 [0.16, 0.21] nats a residual code against 3, and reads as well; the codes must
depend on one another: all of a frame at once lose 1.21 [1.18, 1.24] nats a code and 0.041 [0.033,
0.050] of SIM, the delay pattern 1.54 [1.51, 1.57]. At scale tiny the differences are a ninth of
that or less. All patterns have the same parameters. Scale nano: 15 talkers of 30 minutes and 3
tokenizers of 45, which the variations share, on one H100: 10 hours.
"""

PREDICTOR = "model.talker.code_predictor."
LAYERS, PATTERN = PREDICTOR + "transformer.layers", PREDICTOR + "pattern"
VARIATIONS = {
    "3 layers": {LAYERS: 3},
    "5 layers": {LAYERS: 5},
    "1 layer": {LAYERS: 1},
    "3 layers, parallel": {LAYERS: 3, PATTERN: "parallel"},
    "3 layers, delay": {LAYERS: 3, PATTERN: "delay"},
}
