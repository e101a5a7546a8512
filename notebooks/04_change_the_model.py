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
# # 4. Change the model: an ablation in twenty lines
#
# An architecture is a frozen configuration, so an ablation of sizes is a `replace`, never a fork.
# Here: how deep must the code predictor (the MTP head) be? Three depths are trained for some seconds
# each on the frames of a few sentences and compared by their loss on sentences held out. Tiny sizes on a
# CPU: the point is the method, not the answer.

# %%
import functools
import math
from dataclasses import replace

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

from qtts_jax import QwenTTS
from qtts_jax.configs.presets import tts_12hz
from qtts_jax.functional import abstract, bind, initialize
from qtts_jax.models.code_predictor import CodePredictor
from qtts_jax.models.tts_model import TTSModel


def with_depth(config, layers):
    """The configuration with a code predictor of so many layers."""
    predictor = config.talker.code_predictor
    predictor = replace(predictor, transformer=replace(predictor.transformer, layers=layers))
    return replace(config, talker=replace(config.talker, code_predictor=predictor))


# %% [markdown]
# Counting parameters allocates nothing, even at the released sizes:

# %%
for layers in (1, 3, 5, 8):
    _, shapes = abstract(TTSModel, with_depth(tts_12hz("0b6", "base"), layers))
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    print(f"0.6B with a code predictor of {layers} layers: {total / 1e6:.1f} M parameters")

# %% [markdown]
# ## Data: frames of the shipped voice
#
# The code predictor gets the talker's hidden state and the embedding of codebook 0 and predicts the
# other codebooks of the frame one after the other. So the data are pairs of a hidden state and a
# frame; both fall out of generation when frames are made one at a time. A model is a structure and a
# tree of parameters: `abstract` gives the structure, `bind` joins the two inside a jitted function,
# and what changes from frame to frame is the explicit `state`.

# %%
from qtts_jax.generation.frame_step import frame_step
from qtts_jax.generation.session import Session

tts = QwenTTS.from_pretrained(dtype="float32")
talker_structure, _ = abstract(TTSModel, tts.config)
TEXTS = (
    "The boat left the harbour before sunrise.",
    "Nobody in the village had seen so much snow.",
    "She opened the window and listened to the rain.",
    "A good answer is short, clear and true.",
    "The old bridge was closed for the whole winter.",
    "We planted three trees behind the house.",
    "He forgot his keys on the kitchen table.",
    "Every train was late that evening.",
)


@jax.jit
def record(params, inputs, state):
    """Hidden states [N, B, D] and frames [N, B, Q] of N = 48 more frames."""
    model = bind(talker_structure, params)

    def body(state, _):
        frame, after = frame_step(model, session.methods, inputs, state)
        return after, (state.hidden, frame)

    return jax.lax.scan(body, state, length=48)[1]


requests = [
    tts.prepare_custom_voice(text, "af_heart", seed=seed)
    for text in TEXTS  # six readings of each sentence, rows of one batch
    for seed in range(6)
]
session = Session(tts.config, tts.params, requests)
hidden, frames = record(tts.params, session.conditions, session.state)
spoken = np.asarray(frames[..., 0] >= 0)  # [N, B], False after the end of speech
row = np.arange(spoken.shape[1])
is_train = row < 6 * 6  # the readings of the last two sentences are held out
is_held_out = (row >= 6 * 6) & (row < len(requests))
first = bind(talker_structure, tts.params).talker.embed_codec(frames[..., 0])
data = {
    name: (hidden[kept], first[kept], frames[kept])
    for name, kept in (("train", spoken & is_train), ("held out", spoken & is_held_out))
}
print({name: rows[2].shape for name, rows in data.items()}, "frames, codebooks")

# %% [markdown]
# ## The ablation


# %%
def run(layers, steps=200, rows=64):
    """Train a code predictor of so many layers; its held-out loss every tenth step."""
    config = with_depth(tts.config, layers).talker
    module = functools.partial(CodePredictor, talker_width=config.transformer.width)
    structure, _ = abstract(module, config.code_predictor)
    params = initialize(module, config.code_predictor, seed=0)
    optimizer = optax.adamw(1e-3)

    def loss(params, hidden, first, frames):  # [N, D], [N, D], [N, Q]
        logits = bind(structure, params).teacher_forced(hidden, first, frames[:, 1:])
        return optax.softmax_cross_entropy_with_integer_labels(logits, frames[:, 1:]).mean()

    def step(carry, key):
        params, state = carry
        picked = jax.random.randint(key, (rows,), 0, len(data["train"][0]))
        gradients = jax.grad(loss)(params, *(x[picked] for x in data["train"]))
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    def ten_steps(carry, keys):
        carry, _ = jax.lax.scan(step, carry, keys)
        return carry, loss(carry[0], *data["held out"])

    keys = jax.random.split(jax.random.key(0), (steps // 10, 10))
    start = params, optimizer.init(params)
    return np.asarray(jax.jit(lambda: jax.lax.scan(ten_steps, start, keys)[1])())


curves = {layers: run(layers) for layers in (1, 2, 4)}

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for layers, curve in curves.items():
    axes.plot(10 * np.arange(1, len(curve) + 1), curve, label=f"{layers} layers")
axes.axhline(math.log(tts.config.talker.code_predictor.vocab_size), color="grey", label="uniform")
axes.set(xlabel="step", ylabel="held-out loss, nats a codebook")
axes.legend()
plt.show()
for layers, curve in curves.items():
    print(
        f"{layers} layers: best held-out loss {curve.min():.3f} at step {10 * curve.argmin() + 10}"
    )

# %% [markdown]
# A minute of speech is too little to tell the depths apart; with hours the same lines answer the
# question. `experiments/train/talker.py` trains whole talkers, `experiments/README.md` lists what has
# been measured.
#
# ## From here
#
# - Read `generation/prompt.py`, `generation/frame_step.py` and `models/talker.py`, in this order.
# - `config.to_hf()` is a checkpoint's `config.json`, `qtts_jax.io.checkpoint.save_params` writes its
#   parameters, and `python -m convert SRC DST --to-torch` exports it for the official package.
