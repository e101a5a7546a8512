"""Run an ablation: variations x seeds, trained, scored, and shown in a table and a picture.

    python -m experiments.run --list
    python -m experiments.run rate --minutes 1
    python -m experiments.run rate mtp --scale small --data speech --teacher whisper --processes 4
    python -m experiments.run --report --results experiments/results/ablations

Expected: one line for every piece that begins (tokenizer, codes, talker, scores), then the table.
NAME is a file of `experiments/ablations/`, or the path of a file of that form; what several of them
need is made once. Each run is a process of its own, at most `--processes` on a GPU at a time, or on
a CPU, each on its share of the cores. The same command again goes on where an earlier one was
stopped or killed, and its results are the same; a run that fails is named with its reason and stops
no other. Steps are the budget; `--minutes` bounds the training of a run. RESULTS/SCALE/NAME/ has a
JSON file for every run, RESULTS/SCALE/NAME.md and .png the tables and the picture; `--report` makes
these again from what is there."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from experiments import command
from experiments.runner import ablation, plot, results, schedule, table
from experiments.runner.ablation import Ablation
from experiments.runner.chain import DONE
from experiments.runner.schedule import Work
from experiments.runner.worker import Request
from qtts_jax.cli.common import positive
from qtts_jax.errors import ConfigError, DataError, QTTSError

PIECES = "pieces"
SCALES = ("tiny", "small", "nano")


def main() -> None:
    """Run, list or report."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="ablation, or path of its file")
    parser.add_argument("--list", action="store_true", help="print ablations and questions")
    parser.add_argument(
        "--report", action="store_true", help="tables and pictures of existing results only"
    )
    parser.add_argument("--scale", choices=SCALES, default="tiny", help="sizes and schedules")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variation")
    parser.add_argument("--minutes", type=float, help="longest training of a run")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="pieces and logs")
    parser.add_argument("--results", type=Path, help="results (default: OUT/results)")
    parser.add_argument("--data", type=Path, help="prepared dataset (tiny makes its own)")
    parser.add_argument(
        "--teacher",
        type=Path,
        help="converted Whisper encoder for codebook 0 (tiny has its own)",
    )
    parser.add_argument("--processes", type=positive, default=1, help="at once on a GPU or CPU")
    parser.add_argument("--judges", nargs="+", help="kinds of judges (default: those of the scale)")
    args = parser.parse_args()
    folder = args.results or args.out / "results"
    if args.list:
        for name in ablation.names():
            print(f"{name:12} {ablation.load(name).question}")
    elif args.report:
        for name in args.names or ablation.names():
            report(ablation.load(name), args.scale, folder, {})
    elif not args.names:
        parser.error("name an ablation, or give --list or --report")
    else:
        run(args, [ablation.load(name) for name in args.names], folder)


Failures = dict[tuple[str, str, int], str]
"""Reasons by ablation, variation and seed."""


def run(args: Namespace, chosen: Sequence[Ablation], folder: Path) -> None:
    """Make what is missing of all runs, then report.

    Raises:
        ConfigError: another command works in the same folder.
        QTTSError: there are no recordings, or a run failed (after the reports).
    """
    with _alone(args.out):
        works, requests, failures = planned(args, chosen, folder)

        def ended(work: Work, status: int) -> None:
            key = next(k for k, w in works.items() if w is work)
            if status == 0:
                print(f"{work.name}: done", flush=True)
                return
            failures[key] = reason(requests[key], status, work.log)
            print(f"{work.name}: failed: {failures[key]}", flush=True)

        def finished(piece: str) -> bool:
            return (args.out / PIECES / piece / DONE).is_file()

        places = schedule.devices(args.processes) if works else [{}]
        schedule.run_all(works.values(), places, ended, finished)
    for each in chosen:
        mine = {(v, seed): why for (name, v, seed), why in failures.items() if name == each.name}
        report(each, args.scale, folder, mine)
    if failures:
        count = args.seeds * sum(len(each.variations) for each in chosen)
        raise QTTSError(
            f"{len(failures)} of {count} runs failed; the report has their reasons. The same "
            "command again repeats these alone."
        )


def planned(
    args: Namespace, chosen: Sequence[Ablation], folder: Path
) -> tuple[dict[tuple[str, str, int], Work], dict[tuple[str, str, int], Request], Failures]:
    """The processes to start, the request of each, and the runs that cannot start, with reasons.

    Runs whose result is there have none. All runs of a seed come before the next seed.
    """
    from experiments.runner.pieces import Setting, pieces_of
    from experiments.runner.scales import SCALES as ALL
    from qtts_jax.evaluation.panel import KINDS

    scale = ALL[args.scale]
    dataset, teacher = _recordings(args, scale.own_speech)
    judges = tuple(scale.judges if args.judges is None else args.judges)
    if unknown := sorted(set(judges) - set(KINDS)):
        raise ConfigError(f"there is no judge {unknown[0]!r}; choose among {', '.join(KINDS)}.")
    setting = Setting(scale, args.out / PIECES, dataset, teacher, judges, args.minutes)
    records = [dataset.records[i] for i in dataset.select("train")]
    works: dict[tuple[str, str, int], Work] = {}
    requests: dict[tuple[str, str, int], Request] = {}
    failures: Failures = {}
    for seed in range(args.seeds):
        for each, source, name in [
            (question, source, name)
            for question, source in zip(chosen, args.names, strict=True)
            for name in question.variations
        ]:
            key = (each.name, name, seed)
            path = results.path_of(folder, args.scale, each.name, name, seed)
            try:
                pieces = pieces_of(setting, scale.recipe(each.variations[name], records), seed)
            except QTTSError as error:
                failures[key] = str(error)
                continue
            if path.is_file() and json.loads(path.read_text())["key"] == pieces[-1].key:
                continue
            place = args.out / "runs" / args.scale / each.name / path.stem
            request = Request(
                source, name, seed, args.scale, str(setting.root), str(dataset.directory),
                None if teacher is None else str(teacher), judges, args.minutes, str(path),
                str(place / "failure.json"),
            )  # fmt: skip
            request = _absolute(request)
            request.write(place / "request.json")
            Path(request.failure).unlink(missing_ok=True)
            requests[key] = request
            works[key] = Work(
                f"{each.name}: {name}, seed {seed}",
                [sys.executable, "-m", "experiments.runner.worker", "--request",
                 str((place / "request.json").absolute())],
                place / "log.txt",
                frozenset(f"{piece.name}-{piece.key}" for piece in pieces),
            )  # fmt: skip
    return works, requests, failures


def reason(request: Request, status: int, log: Path) -> str:
    """Why a process ended without a result, in one line."""
    path = Path(request.failure)
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"{found['piece']}: {' '.join(found['reason'].split())}"
    if status < 0:
        name = signal.Signals(-status).name
        return f"the process was ended by {name} (out of memory, unless someone sent it); see {log}"
    return f"the process ended with status {status}; see {log}"


def report(chosen: Ablation, scale: str, folder: Path, failures: table.Failures) -> None:
    """Write and print the tables, and draw the picture, of the results that exist."""
    found = results.read(folder, scale, chosen.name, chosen.variations)
    if not found and not failures:
        print(f"{chosen.name}: no results of scale {scale} in {folder}")
        return
    line = f"python -m experiments.run {chosen.name} --scale {scale}"
    text = table.markdown(chosen, scale, found, failures, line)
    path = folder / scale / f"{chosen.name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(text)
    if found:
        plot.save(chosen, found, path.with_suffix(".png"))
        print(f"{path} and {path.with_suffix('.png').name}")


def _recordings(args: Namespace, own_speech: bool):  # type: ignore[no-untyped-def]
    """The dataset, and the teacher if there is one.

    Raises:
        ConfigError: the scale needs a dataset and none is named.
        DataError: the recordings cannot be made.
    """
    from qtts_jax import data

    if args.data is not None:
        return data.Dataset(args.data), args.teacher
    if not own_speech:
        raise ConfigError(
            f"the scale {args.scale} needs recordings: --data names a dataset of `python -m "
            "qtts_jax.data prepare`."
        )
    place = args.out / f"speech-{args.scale}"
    if not (place / "teacher.npz").is_file():
        print("the shipped voice speaks the recordings (once)", flush=True)
        # By another process: JAX would keep the memory of a GPU in this one.
        argv = [sys.executable, "-m", "experiments.runner.speech", "--out", str(place.absolute())]
        if subprocess.run(argv, cwd=command.ROOT).returncode:
            raise DataError("the recordings were not made, for the reason above.")
    return data.Dataset(place / "dataset"), place / "teacher.npz"


def _absolute(request: Request) -> Request:
    """A request whose paths hold from any working directory."""

    def path(text: str | None) -> str | None:
        return None if text is None else str(Path(text).absolute())

    name = request.ablation
    return replace(
        request,
        ablation=str(Path(name).absolute()) if name.endswith(".py") else name,
        **{field: path(getattr(request, field))
           for field in ("root", "dataset", "teacher", "result", "failure")},
    )  # fmt: skip


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """A lock on a folder of pieces, which the end of the process removes.

    Raises:
        ConfigError: another process has it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"another ablation runs in {out}; wait for it, or give another --out."
            ) from None
        yield


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
