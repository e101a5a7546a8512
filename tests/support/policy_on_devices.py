"""Run by test_rollout_batches.py with four virtual devices: python policy_on_devices.py DIRECTORY

Trains the small policy for two sets of rollouts on one device and on meshes, and prints the metrics
of all steps.
"""

import json
import sys
from pathlib import Path

import jax

from qtts_jax.training.log import read_metrics
from qtts_jax.training.mesh import MeshConfig
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.trainer import Trainer
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.small_policy import rollout_batches, task

MESHES = {
    "data and fsdp": MeshConfig(data=2, fsdp=2, fsdp_min_size=64),
    "data and model": MeshConfig(data=2, model=2),
}
NAMES = ("loss", "objective", "reward", "kl", "frames", "surprisal", "grad_norm/talker")


def metrics_of(directory, mesh):
    policy = task()
    batches = rollout_batches(policy, mesh=mesh)
    config = TrainerConfig(
        4,
        {"talker": OptimizerConfig(1e-5, weight_decay=0.0)},
        mesh=mesh,
        log_every=1,
        tensorboard=False,
        progress=False,
    )
    Trainer(policy, batches, config, directory).run()
    return [{name: row[name] for name in NAMES} for row in read_metrics(directory)]


def main():
    assert jax.device_count() == 4
    directory = Path(sys.argv[1])
    one = metrics_of(directory / "one", MeshConfig())
    found = {name: metrics_of(directory / name, mesh) for name, mesh in MESHES.items()}
    print(json.dumps({"one": one, "mesh": found}))


if __name__ == "__main__":
    main()
