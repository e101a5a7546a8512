"""Library of the benchmarks of training: one measurement, or several settings in new processes."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from experiments import command


def measure_settings(
    parser: argparse.ArgumentParser,
    module: str,
    measure: Callable[[argparse.Namespace], dict[str, Any]],
) -> None:
    """Read the command line, measure once or each of `--variants`, print and write the results.

    Args:
        parser: with the settings of the benchmark as its options.
        module: of the command, such as "experiments.bench.train".
    """
    parser.add_argument(
        "--variants",
        nargs="+",
        metavar="OPTIONS",
        help='settings to compare, such as "rows=2 remat=blocks"',
    )
    parser.add_argument("--limit", type=float, default=540, help="seconds for all variants")
    parser.add_argument(
        "--out", type=Path, help="JSON file for the results (default: only printed)"
    )
    args = parser.parse_args()
    # JAX reserves 75 % of device memory by default; a large batch needs more.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.93")
    own = ("variants", "limit", "out")
    settings = {name: value for name, value in vars(args).items() if name not in own}
    if args.variants:
        given = []
        for name, value in settings.items():
            if value != parser.get_default(name):
                option = f"--{name.replace('_', '-')}"
                given += [option] if value is True else [option, str(value)]
        run_variants(module, args.variants, args.limit, given, args.out)
        return
    result = {
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "settings": settings,
        **measure(args),
    }
    print(json.dumps(result, indent=1))
    if args.out:
        _write(args.out, result)


def run_variants(
    module: str, variants: list[str], limit: float, given: list[str], out: Path | None
) -> None:
    """Measure each variant in a process of its own, and write all results after each."""
    end, runs = time.monotonic() + limit, []
    for variant in variants:
        left = end - time.monotonic()
        if left <= 0:
            runs.append({"variant": variant, "error": f"not run: the limit of {limit:g} s is over"})
        else:
            print(f"{variant}: {left:.0f} s left", flush=True)
            runs.append({"variant": variant, **_run_variant(module, variant, left, given)})
        print(json.dumps(runs[-1]), flush=True)
        if out:
            _write(out, {"runs": runs})


def _run_variant(module: str, variant: str, seconds: float, given: list[str]) -> dict[str, Any]:
    pairs = [pair.split("=", 1) for pair in variant.split()]
    options = [word for name, *value in pairs for word in (f"--{name}", *value)]
    with tempfile.TemporaryDirectory() as directory:
        found = Path(directory) / "result.json"
        argv = [
            sys.executable,
            "-m",
            module,
            *given,
            *options,
            "--out",
            str(found),
        ]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {seconds:.0f} s"}
        if done.returncode == 0:
            return json.loads(found.read_text())
    # The last line that names an error has the reason; JAX adds advice below it.
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    return {"error": next((x for x in reversed(lines) if "rror" in x), lines[-1])[:500]}


def _write(out: Path, result: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(
        command.exit_status_of_library(
            __file__, "experiments.bench.train", "experiments.bench.post_train"
        )
    )
