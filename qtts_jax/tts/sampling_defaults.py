"""Reads the sampling settings that a checkpoint brings."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.errors import CheckpointError


def read_sampling_defaults(directory: Path) -> SamplingParams:
    """The settings of a checkpoint's `generation_config.json`.

    Raises:
        CheckpointError: the file is absent or not a JSON object.
        RequestError: a setting is impossible.
    """
    path = directory / "generation_config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot read {path} ({error}); copy it from the released checkpoint."
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object; copy it from the checkpoint.")
    # The file may hold more settings of the upstream generation loop, none of which apply here.
    known = {f.name for f in fields(SamplingParams)}
    return SamplingParams().merge({k: v for k, v in data.items() if k in known})
