"""Library of the ablations: processes, at most one on a device at a time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments import command
from qtts_jax.errors import QTTSError

POLL_SECONDS = 0.2
CORES = "QTTS_RUN_CORES"
"""Environment variable of a process of an ablation: the cores that it may use, by comma."""


@dataclass(frozen=True)
class Work:
    """A process that makes pieces.

    Attributes:
        name: shown to the reader.
        argv: its command.
        log: file that takes its output.
        needs: pieces that it makes, or uses if they are finished; two processes never make the
            same piece at once.
    """

    name: str
    argv: Sequence[str]
    log: Path
    needs: frozenset[str]


def devices(processes: int = 1) -> list[dict[str, str]]:
    """For each process that may run at once, the environment that gives it its device.

    GPUs are given one by one; a CPU, and a TPU host, count as one device. The devices are counted
    by another process, since JAX would take the memory of a GPU in this one.

    Args:
        processes: of one GPU, each with its part of the memory. A small model uses a GPU only now
            and then, and other processes compile or score meanwhile. Of a CPU, each with its share
            of the cores of this process.

    Raises:
        QTTSError: JAX does not start here.
    """
    code = "import jax; print(jax.default_backend(), jax.local_device_count())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if out.returncode:
        last = (out.stderr.strip().splitlines() or ["no message"])[-1]
        raise QTTSError(f"JAX does not start on this machine's devices: {last}")
    backend, count = out.stdout.split()[-2:]
    if backend == "cpu" and processes > 1:
        if shutil.which("taskset") is None:  # not Linux
            return [{}] * processes
        cores = sorted(os.sched_getaffinity(0))
        share = max(1, len(cores) // processes)
        groups = [cores[n : n + share] for n in range(0, share * min(processes, len(cores)), share)]
        return [{CORES: ",".join(map(str, group))} for group in groups]
    if backend not in ("gpu", "cuda", "rocm"):
        return [{}]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(i) for i in range(int(count))]
    share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / processes:.3f}"} if processes > 1 else {}
    # Each GPU gets its first process before any gets a second one.
    return [{"CUDA_VISIBLE_DEVICES": name, **share} for _ in range(processes) for name in names]


def run_all(
    works: Iterable[Work],
    places: Sequence[dict[str, str]],
    ended: Callable[[Work, int], None],
    finished: Callable[[str], bool] = lambda piece: False,
) -> None:
    """Run all processes, each alone on one of the places; `ended` gets each exit status.

    A process that needs a piece which another one is making waits until it is `finished`, or until
    the other process has ended; the next one takes its turn.
    SIGTERM and Ctrl-C are passed on to the processes, which save and stop, and are waited for.
    """
    waiting, running = list(works), {}  # type: ignore[var-annotated]
    before = {s: signal.signal(s, _raise) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        while waiting or running:
            free = [i for i in range(len(places)) if i not in running]
            for place in free:
                busy = frozenset().union(*(work.needs for work, _ in running.values()))
                work = next((w for w in waiting if all(map(finished, w.needs & busy))), None)
                if work is None:
                    break
                waiting.remove(work)
                running[place] = (work, _start(work, places[place]))
            time.sleep(POLL_SECONDS)
            for place, (work, process) in list(running.items()):
                status = process.poll()
                if status is not None:
                    del running[place]
                    ended(work, status)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def _start(work: Work, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    work.log.parent.mkdir(parents=True, exist_ok=True)
    argv = list(work.argv)
    if CORES in environment:
        # Before the program begins, since libraries count the cores when they are loaded.
        argv = ["taskset", "--cpu-list", environment[CORES], *argv]
    with work.log.open("ab") as log:
        return subprocess.Popen(
            argv,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=command.ROOT,
            env=os.environ | environment,
            # A Ctrl-C of the terminal would otherwise reach the processes twice.
            start_new_session=True,
        )


def _raise(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
