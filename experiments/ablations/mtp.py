"""How deep must the code predictor (the MTP head) be, and must its codes depend on one another?

    python -m experiments.run mtp

Answer: not run yet. Scale nano: 15 talkers of 30 minutes and 3 tokenizers of 45, which the
variations share, on one H100: 10 hours. "parallel" predicts all codes of a frame at once, "delay"
each a frame after the one before; both have the layers and the parameters of "3 layers".
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
