"""Library of the ablations: the result of a run, one JSON file each."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments import command
from experiments.runner.ablation import slug
from qtts_jax.io.atomic_files import write_whole

Result = dict[str, Any]
PACKAGES = ("qtts_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def path_of(folder: Path, scale: str, ablation: str, variation: str, seed: int) -> Path:
    """Where the result of a run is."""
    return folder / scale / ablation / f"{slug(variation)}.seed{seed}.json"


def write(path: Path, result: Result) -> None:
    """Write a result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (_lines(result) + "\n").encode())


def read(folder: Path, scale: str, ablation: str, variations: Mapping[str, Any]) -> list[Result]:
    """The results of an ablation that exist, in the order of its variations, then by seed."""
    order = list(variations)
    found = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / scale / ablation).glob("*.seed*.json"))
    ]
    found = [r for r in found if r["variation"] in order]
    return sorted(found, key=lambda r: (order.index(r["variation"]), r["seed"]))


def machine() -> dict[str, Any]:
    """Device, cores, versions and commit of this run."""
    import jax

    return {
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "machine": f"{_cores()} cores, {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def _cores() -> str:
    """The number of cores that this process may use, of how many if there are more."""
    there = os.cpu_count()
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return str(own) if own == there else f"{own} of {there}"


def _commit() -> str | None:
    """The commit of the repository, with "+" where files differ.

    Outside a repository (a copied tree) that of the environment variable QTTS_COMMIT, or None.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(command.ROOT), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("QTTS_COMMIT")


def _lines(value: Any, depth: int = 0) -> str:
    """JSON with one line for every list and every mapping of plain values, to be read in a diff."""
    if isinstance(value, dict) and any(isinstance(x, dict) for x in value.values()):
        inner = ",\n".join(
            f"{' ' * (depth + 1)}{json.dumps(name)}: {_lines(x, depth + 1)}"
            for name, x in value.items()
        )
        return f"{{\n{inner}\n{' ' * depth}}}"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
