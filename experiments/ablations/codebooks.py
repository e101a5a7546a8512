"""How many codebooks does a frame need: 16, 8 or 4, each tokenizer trained for its number?

    python -m experiments.run codebooks

Answer: not run yet. Scale nano: 9 runs of 75 minutes on one H100, 11 hours.
"""

from experiments.runner.recipe import codebooks

VARIATIONS = {f"{count} codebooks": codebooks(count) for count in (16, 8, 4)}
