"""Library of the ablations: one run in a process of its own, so that it can fail alone.

    python -m experiments.runner.worker --request REQUEST.json

REQUEST.json is written by `experiments.run`. The result or the reason of the failure is left where
it says. SIGTERM stops it after a checkpoint.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments import command
from experiments.runner import ablation, chain, results
from qtts_jax.errors import QTTSError
from qtts_jax.io.atomic_files import write_whole


@dataclass(frozen=True)
class Request:
    """What one process is to do.

    Attributes:
        ablation: name or path of its file.
        variation, seed: of the run.
        scale: name.
        root: folder of all pieces.
        dataset, teacher: paths; no teacher is None.
        judges: kinds of judges.
        minutes: longest training; None without a limit.
        result, failure: files to write.
    """

    ablation: str
    variation: str
    seed: int
    scale: str
    root: str
    dataset: str
    teacher: str | None
    judges: tuple[str, ...]
    minutes: float | None
    result: str
    failure: str

    def write(self, path: Path) -> None:
        """As a file for `main`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Request:
        """What `write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "judges": tuple(values["judges"])})


def perform(
    request: Request,
    pieces: Sequence[chain.Piece],
    about: Callable[[chain.Records], results.Result],
) -> int:
    """Make all pieces of a run and write its result, or the reason why not.

    Args:
        about: (records of the pieces) -> what the result says besides names and seed.

    Returns:
        exit status: 0, or 1 for a failure.

    Raises:
        SystemExit: a signal stopped a training.
    """
    failure, at = Path(request.failure), "start"

    def started(name: str) -> None:
        nonlocal at
        at = name
        print(f"{request.variation}, seed {request.seed}: {name}", flush=True)

    try:
        records = chain.make(pieces, Path(request.root), started)
        result = {
            "ablation": Path(request.ablation).stem, "variation": request.variation,
            "seed": request.seed, "scale": request.scale, "minutes": request.minutes,
            **about(records),
        }  # fmt: skip
        results.write(Path(request.result), result)
        failure.unlink(missing_ok=True)
    except Exception as error:
        kind = "" if isinstance(error, QTTSError) else f"{type(error).__name__}: "
        reason = {"piece": at, "reason": f"{kind}{error}", "trace": traceback.format_exc()}
        write_whole(failure, (json.dumps(reason, indent=1) + "\n").encode())
        traceback.print_exc()
        return 1
    return 0


def run(request: Request) -> int:
    """One run of an ablation of this package; the exit status."""
    # Here, so that a process that only writes requests does not import all of training.
    from experiments.runner.pieces import Setting, pieces_of
    from experiments.runner.scales import SCALES
    from qtts_jax import data

    changes = ablation.load(request.ablation).variations[request.variation]
    setting = Setting(
        SCALES[request.scale],
        Path(request.root),
        data.Dataset(request.dataset),
        None if request.teacher is None else Path(request.teacher),
        request.judges,
        request.minutes,
    )
    recipe = setting.scale.recipe(changes, _training_records(setting.dataset))
    pieces = pieces_of(setting, recipe, request.seed)

    def about(records: chain.Records) -> dict[str, Any]:
        return {
            "key": pieces[-1].key,
            "changes": {path: getattr(x, "__name__", repr(x)) for path, x in changes.items()},
            "frame_rate": recipe.frame_rate,
            "codebooks": recipe.tokenizer.codebooks,
            "bit_rate": recipe.bit_rate,
            "config": {"tokenizer": recipe.tokenizer.to_hf(), "talker": recipe.model.to_hf()},
            "machine": results.machine(),
            "clips_trained_on": len(_training_records(setting.dataset)),
            **records,
        }

    return perform(request, pieces, about)


def _training_records(dataset: Any) -> list[Any]:
    return [dataset.records[i] for i in dataset.select("train")]


def main() -> int:
    """Do what the file named on the command line says."""
    if sys.argv[1:2] != ["--request"]:
        return command.exit_status_of_library(__file__, "experiments.run")
    return run(Request.read(Path(sys.argv[2])))


if __name__ == "__main__":
    raise SystemExit(main())
