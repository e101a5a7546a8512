"""How deep must the code predictor (the MTP head) be: 5, 3 or 1 layers?

    python -m experiments.run mtp

Answer: not run yet. Scale nano: 9 talkers of 30 minutes and 3 tokenizers of 45, which the
variations share, on one H100: 7 hours. Another form of the predictor is one more entry: the changes
of its configuration.
"""

LAYERS = "model.talker.code_predictor.transformer.layers"
VARIATIONS = {f"{layers} layers": {LAYERS: layers} for layers in (5, 3, 1)}
