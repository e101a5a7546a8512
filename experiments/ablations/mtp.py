"""How deep must the code predictor (the MTP head) be: 1, 3 or 5 layers?

    python -m experiments.run mtp

Answer: not run at a scale that answers it. `results/ablations/tiny/mtp.md` shows that the machinery
works. At scale nano about 9 talkers of half an hour on one GPU and 3 tokenizers, which the
variations share. Another form of the predictor is another entry here: the changes of its
configuration.
"""

LAYERS = "model.talker.code_predictor.transformer.layers"
VARIATIONS = {f"{layers} layers": {LAYERS: layers} for layers in (5, 3, 1)}
