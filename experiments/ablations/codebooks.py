"""How many codebooks does a frame need: 16, 8 or 4, each tokenizer trained for its number?

    python -m experiments.run codebooks

Answer: at scale small (3 seeds, 2 of 8 codebooks; `experiments/results/ablations/small/
codebooks.md`) resynthesis needs 16, 4.9 [2.9, 7.4] % of the words wrong, 7.3 [4.7, 10.3] with 8 and
15.1 [11.5, 19.2] with 4; talkers read best with 8 after 16,000 steps, 39.5 [33.7, 45.6] %. At scale
tiny, after a minute of training, fewer codebooks hardly change the resynthesis: STOI 0.483 [0.446,
0.514] with 16, 0.466 [0.431, 0.498] with 4. Scale nano: 9 runs of 75 minutes on one H100, 11 hours.
"""

from experiments.runner.recipe import codebooks

VARIATIONS = {f"{count} codebooks": codebooks(count) for count in (16, 8, 4)}
