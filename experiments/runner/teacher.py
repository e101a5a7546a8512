"""Library of the ablations: features of the semantic teacher, stored for all runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments import command
from qtts_jax import data
from qtts_jax.data.dataset import Waves
from qtts_jax.io.atomic_files import npz_bytes, write_whole


def store(path: Path, features: data.Features) -> None:
    """Write features, whole or not at all."""
    arrays = {
        "hop": np.asarray(features.hop),
        "starts": features.starts,
        "values": features.values.astype(np.float16),
    }
    write_whole(path, npz_bytes(arrays))


def stored(path: Path, waves: Waves) -> data.Features:
    """The features that `store` wrote, of the same clips."""
    with np.load(path) as file:
        return data.Features(waves.indices, int(file["hop"]), file["starts"], file["values"])


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
