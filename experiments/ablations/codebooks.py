"""How many codebooks does a frame need: 16, 8 or 4, each tokenizer trained for its number?

    python -m experiments.run codebooks

Answer: not run at a scale that answers it. `results/ablations/tiny/codebooks.md` shows that the
machinery works. At scale nano about 9 runs of an hour on one GPU.
"""

from experiments.runner.recipe import codebooks

VARIATIONS = {f"{count} codebooks": codebooks(count) for count in (16, 8, 4)}
