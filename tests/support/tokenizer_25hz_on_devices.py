"""Run by test_meshes.py of the 25 Hz tokenizer in a process with four virtual devices.

    python tokenizer_25hz_on_devices.py DIRECTORY TASK MESH ...

Computes one microbatch on one device and on meshes, and prints the largest relative differences.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from qtts_jax.training.mesh import MeshConfig
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.tokenizer.config import (
    CodebookTraining,
    DiscriminatorConfig,
    TokenizerTraining,
)
from qtts_jax.training.tokenizer_25hz.config import EncoderTraining
from qtts_jax.training.tokenizer_25hz.encoder_task import EncoderTask
from qtts_jax.training.tokenizer_25hz.flow_task import FlowTask
from qtts_jax.training.tokenizer_25hz.vocoder_task import VocoderTask
from qtts_jax.training.trainer import Trainer
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.mesh_gradients import mesh_gradients
from tests.support.small_tokenizer_25hz import (
    HEADS,
    toy_config,
    toy_flow_batch,
    toy_transcripts,
    toy_vocoder_batch,
)

MESHES = {
    "one": MeshConfig(),
    "data": MeshConfig(data=2),
    "data and fsdp": MeshConfig(data=2, fsdp=2, fsdp_min_size=64),
}
FULL = {"dtype": "float32", "precision": "highest"}
ENCODER = EncoderTraining(mel=1.0, codebook=CodebookTraining(dropout=0.0))
VOCODER = TokenizerTraining(
    stage="decoder",
    mel_scales=((32, 5), (64, 10)),
    balance=0.9,
    discriminator=DiscriminatorConfig((3,), (4, 6), (32,), 3),
)
# Enough vectors that k-means finds a centre of its own for each of 16 entries: an entry without is
# a copy of another, and rounding chooses between the two.
MANY = (16, 9, 3, 12)
# Rows of different lengths, so that the devices have unequal numbers of targets.
TASKS = {
    "encoder": lambda: (
        EncoderTask(toy_config(), HEADS, ENCODER, **FULL),
        toy_transcripts(MANY, 1),
    ),
    "flow": lambda: (FlowTask(toy_config(), **FULL), toy_flow_batch((8, 5, 2, 7))),
    "vocoder": lambda: (VocoderTask(toy_config(), VOCODER, **FULL), toy_vocoder_batch(rows=4)),
}
SETTINGS = TrainerConfig(steps=1, optimizers={}, tensorboard=False, progress=False)


def computed(name, mesh, directory):
    """Gradients, extras and metrics of a task on a mesh, each by name."""
    task, batch = TASKS[name]()
    groups = jax.eval_shape(task.init, jax.random.key(0))[0]
    settings = replace(
        SETTINGS, mesh=MESHES[mesh], optimizers=dict.fromkeys(groups, OptimizerConfig(1e-3))
    )
    return mesh_gradients(Trainer(task, None, settings, directory / mesh), batch)


def difference(found, wanted):
    """The largest error of any array, relative to the largest value of that array.

    Gradients that cancel to 0, as of a discriminator's last bias, have only rounding: an array
    counts as having at least a thousandth of the largest value of all.
    """
    assert found.keys() == wanted.keys()
    largest = {name: float(np.abs(x).max()) for name, x in wanted.items()}
    least = 1e-3 * max(largest.values(), default=0.0)
    errors = {n: float(np.abs(found[n] - x).max()) for n, x in wanted.items()}
    return max((error / max(largest[n], least) for n, error in errors.items()), default=0.0)


def main():
    assert jax.device_count() == 4
    directory, task, *meshes = sys.argv[1:]
    wanted = computed(task, "one", Path(directory))
    report = {}
    for mesh in meshes:
        found = computed(task, mesh, Path(directory))
        parts = zip(("gradients", "extras", "metrics"), found, wanted, strict=True)
        report[mesh] = {part: difference(*pair) for part, *pair in parts}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
