# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6. 12.5 Hz or 25 Hz? Ablations with intervals
#
# An ablation is a file with a question and variations of one recipe. `python -m experiments.run NAME`
# trains every variation with several seeds (tokenizer, codes, talker), scores them on held-out clips
# and writes tables. Here: the committed results of the first question, then a new question.
#
# The committed results are of scale `small`: models of the size of the shipped voice, trained for
# minutes on 19 hours of synthetic speech. They show what such models learn first, and nothing about a
# model of 0.6B.

# %%
import sys
import tempfile
from pathlib import Path

ROOT = Path.cwd().parent
sys.path.insert(0, str(ROOT))

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Markdown, display

from experiments.runner import ablation, plot, results, table

rate = ablation.load("rate")
print(rate.doc)

# %% [markdown]
# ## The committed results
#
# One JSON file a run: configuration, machine, steps, FLOPs, curves and the scores of every clip. The
# table is made from these files.

# %%
committed = ROOT / "experiments/results/ablations"
found = results.read(committed, "small", "rate", rate.variations)
text = table.markdown(rate, "small", found, {}, "python -m experiments.run rate --scale small")
display(Markdown(text))

# %% [markdown]
# A dot is the mean over seeds and clips, the bar its 95 % interval (seeds and clips drawn anew; with
# one seed over clips alone, which says nothing about another training), a grey mark one seed. Where
# intervals overlap, look at the differences in the table above: they are of the same seeds and clips,
# so their intervals are narrower.

# %%
display(plot.draw(rate, found))

# %% [markdown]
# Losses per code are comparable within one tokenizer only: the codes of another one are easier or
# harder to predict. What the arms share is speech: its spectrum, its words, its end.
#
# The curves are in the files too:

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for panel, piece, name in zip(panels, ("tokenizer", "talker"), ("mel", "loss"), strict=True):
    for colour, variation in enumerate(rate.variations):
        for run in (r for r in found if r["variation"] == variation):
            # The last stage of a tokenizer trains the decoder.
            training = run["tokenizer"]["stages"][-1] if piece == "tokenizer" else run["talker"]
            steps, values = np.transpose(training["curves"][name])
            label = variation if run["seed"] == 0 else None
            panel.plot(steps, values, color=f"C{colour}", alpha=0.7, label=label)
    panel.set(xlabel="step", ylabel=f"{name} loss of the {piece}")
    panel.legend()
plt.show()

# %% [markdown]
# ## A new question in twenty lines
#
# Does the talker need the alignment loss (which text token each frame speaks)? A variation names
# fields of the recipe by their path and gives new values; everything else is that of the scale. Both
# variations have the same tokenizer, which is trained once.

# %%
QUESTION = '''"""Does the talker learn its codes better with the alignment loss?

    python -m experiments.run alignment.py

Answer: a minute of training is too short to say.
"""

SHORT = {"stages.*.trainer.steps": 40, "talker_trainer.steps": 40}
WEIGHT = "talker_options.alignment_weight"
VARIATIONS = {
    "with alignment loss": SHORT | {WEIGHT: 1.0},
    "without": SHORT | {WEIGHT: 0.0},
}
'''
folder = Path(tempfile.mkdtemp())
(folder / "alignment.py").write_text(QUESTION)

# %%
import math
from types import SimpleNamespace

import jax

from experiments.runner.scale_tiny import TINY
from qtts_jax.functional import abstract
from qtts_jax.models.tts_model import TTSModel

mine = ablation.load(str(folder / "alignment.py"))
texts = [SimpleNamespace(text="The old sailor sold a boat.", language="english", speaker="ada")]
for name, changes in mine.variations.items():
    recipe = TINY.recipe(changes, texts)
    _, shapes = abstract(TTSModel, recipe.model)
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    print(
        f"{name}: {recipe.bit_rate:g} bit/s, {size / 1e3:.0f} k parameters, "
        f"{recipe.talker_trainer.steps} steps, {recipe.talker_options}"
    )

# %% [markdown]
# A path that names no field is an error with the fields that there are:

# %%
from qtts_jax.errors import ConfigError

try:
    TINY.recipe({"talker_trainer.step": 10}, texts)
except ConfigError as error:
    print(error)

# %% [markdown]
# `python -m experiments.run alignment.py` trains and scores both, in a few minutes on two cores.
#
# ## From here
#
# - `experiments/README.md` lists the questions, what is answered and what an answer costs.
# - `--scale nano` trains models of the size of the shipped voice on a GPU, from a dataset of yours;
#   several GPUs of a host work on several runs at once, and a killed command goes on where it was.
# - A form of the code predictor, a loss or a layout that has a configuration is a variation at once.
