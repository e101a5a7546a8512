"""How many codebooks does a frame need: 16, 8 or 4, each tokenizer trained for its number?

    python -m experiments.run codebooks

Answer: at scale tiny (3 seeds, `experiments/results/ablations/tiny/codebooks.md`) fewer codebooks
hardly change the resynthesis of tokenizers that trained for a minute: STOI of 16 codebooks 0.483
[0.446, 0.514], of 4 0.466 [0.431, 0.498]. Scale nano: 9 runs of 75 minutes on one H100, 11 hours.
"""

from experiments.runner.recipe import codebooks

VARIATIONS = {f"{count} codebooks": codebooks(count) for count in (16, 8, 4)}
