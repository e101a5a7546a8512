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
# # 5. Sharded inference: the same codes on one device and on eight
#
# A mesh has two axes. Rows of a batch, their key/value caches and codec states are split over
# `data`; attention heads and feed-forward width are split over `model`. The models know nothing of
# it: every parameter names its axes, one table (`qtts_jax.sharding.RULES`) assigns them to the mesh,
# and XLA inserts the communication.
#
# On a host with several GPUs or TPU chips the cells below use them. Elsewhere they use eight virtual
# CPU devices, which check everything but speed: they share the cores of this machine.

# %%
import jax

if jax.config.jax_platforms in (None, "", "cpu"):
    jax.config.update("jax_num_cpu_devices", 8)  # has no effect on GPUs and TPUs

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.ticker import MaxNLocator

from qtts_jax import QwenTTS, make_mesh
from qtts_jax.generation.session import Session
from qtts_jax.sharding import RULES, rows

count = len(jax.devices())
print(count, "devices of kind", jax.devices()[0].device_kind)
print("logical axis -> mesh axis:", RULES)

# %% [markdown]
# ## A model on a mesh
#
# `mesh=` is the only difference. The shipped checkpoint is loaded three times, in float32: on one
# device, with rows split over all devices, and with rows and model split.

# %%
model = 2 if count % 2 == 0 else 1
meshes = {
    "one device": None,
    f"{count}x1": make_mesh(data=count),
    f"{count // model}x{model}": make_mesh(data=count // model, model=model),
}
models = {
    name: QwenTTS.from_pretrained(dtype="float32", mesh=mesh) for name, mesh in meshes.items()
}


def share(tree):
    """Bytes of a tree on each device, over the bytes of one copy."""
    leaves = jax.tree.leaves(tree)
    total = sum(x.nbytes for x in leaves)
    held = [
        sum(s.data.nbytes for x in leaves for s in x.addressable_shards if s.device == d)
        for d in jax.devices()
    ]
    return np.array(held) / total


for name, tts in models.items():
    print(f"{name:10} share of the parameters on each device:", share(tts.params).round(2))

# %% [markdown]
# A matrix whose axis the mesh does not divide stays whole (the three key/value heads of nano's code
# predictor on `model=2`); released models have eight.
#
# ## Where things are
#
# Which part of an array is on which device: a projection of the talker, and its key/value cache
# after a batch has been prefilled. Every colour is one device; columns of a split projection belong
# to different heads.

# %%
TEXTS = (
    "One sentence.",
    "The second one is a little longer than the first.",
    "Two.",
    "The fourth request of this batch is the longest one of all of them.",
    "And here is the last.",
)


def requests(tts):
    """A batch of five sampled requests of different lengths."""
    return [
        tts.prepare_custom_voice(text, "af_heart", seed=seed, max_new_tokens=24)
        for seed, text in enumerate(TEXTS)
    ]


sessions = {name: Session(tts.config, tts.params, requests(tts)) for name, tts in models.items()}


def owners(x):
    """The device that holds each element of an array; the first of several."""
    held = np.full(x.shape, -1)
    for shard in reversed(x.addressable_shards):
        held[shard.index] = shard.device.id
    return held


figure, axes = plt.subplots(2, len(models), figsize=(9, 4.5), layout="constrained")
colours = ListedColormap(plt.get_cmap("tab10").colors[:count])
for column, (name, tts) in zip(axes.T, models.items(), strict=True):
    kernel = tts.params["talker"]["transformer"]["layers"][0]["ffn"]["down"]["kernel"]  # [D, F]
    kernel = getattr(kernel, "values", kernel)  # CPUs with bfloat16 matrices keep them so
    keys = sessions[name].state.talker.layers[0].keys  # [B, S, K, h]
    for plot, x, title, labels in (
        (column[0], owners(kernel), f"{name}: a matrix", ("feed-forward channel", "width")),
        (column[1], owners(keys)[:, 0, :, 0], f"{name}: keys", ("head", "row of the batch")),
    ):
        plot.imshow(x, cmap=colours, vmin=-0.5, vmax=count - 0.5, aspect="auto")
        plot.set(title=title, xlabel=labels[0], ylabel=labels[1])
        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
plt.show()

# %% [markdown]
# Five requests became eight rows, so that the mesh divides them; the padding rows generate nothing.
#
# ## The same codes, the same audio
#
# Sampling draws from a key of each request and frame, so the place of a row changes nothing.

# %%
speech = {name: tts.synthesize(requests(tts)) for name, tts in models.items()}
for name, made in speech.items():
    equal = [
        np.array_equal(a.codes, b.codes) for a, b in zip(made, speech["one device"], strict=True)
    ]
    error = max(
        np.abs(a.wave - b.wave).max() for a, b in zip(made, speech["one device"], strict=True)
    )
    print(f"{name:10} codes equal: {equal}, largest difference of the audio {error:.1e}")

# %% [markdown]
# ## The work of one device
#
# A mesh helps only if each device does less. The compiled programs say so, here for the prefill of
# the batch: floating-point operations of one device, and the communication that XLA inserted.

# %%
import re

from qtts_jax.generation.batch import host_batch
from qtts_jax.generation.packed_rows import pack
from qtts_jax.generation.programs import programs

for name, tts in models.items():
    program = programs(tts.config, meshes[name])
    inputs, _ = host_batch(tts.config, requests(tts), multiple=program.row_multiple)
    packed, layout = pack(inputs)
    if meshes[name] is not None:
        packed = jax.device_put(packed, rows(meshes[name]))
    compiled = program.start.lower(tts.params, packed, layout=layout, capacity=256).compile()
    text = compiled.as_text()
    moved = {kind: len(re.findall(rf" {kind}\(", text)) for kind in ("all-reduce", "all-gather")}
    print(f"{name:10} {compiled.cost_analysis()['flops'] / 1e6:7.1f} MFLOP a device, {moved}")

# %% [markdown]
# Rows need no communication, so `data` comes first when many requests wait: eight devices do eight
# times as much. `model` costs two all-reduces a layer and saves weight reads: it is for the latency
# of a single stream of a large model.
#
# ## On a host with several chips
#
# The cells above are what runs there. On the command line:
#
# ```
# pip install 'jax[tpu]' -e .        # or jax[cuda13]
# qtts batch requests.jsonl --out speech --model models/NAME --mesh data=8
# python -m experiments.bench.sharded --out experiments/results/bench_sharded.NAME.json
# ```
#
# Back to: [quickstart](01_quickstart.ipynb), [changing the model](04_change_the_model.ipynb).
