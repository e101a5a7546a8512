"""How deep must the code predictor (the MTP head) be, and must its codes depend on one another?

    python -m experiments.run mtp

Answer: at scale tiny (3 seeds, `experiments/results/ablations/tiny/mtp.md`) 1, 3 and 5 layers
predict the residual codes alike; predicting all codes of a frame at once costs 0.06 [0.04, 0.07]
nats a code, the delay pattern 0.17 [0.16, 0.18]. All patterns have the same parameters. Scale nano:
15 talkers of 30 minutes and 3 tokenizers of 45, which the variations share, on one H100: 10 hours.
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
