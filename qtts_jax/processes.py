"""Start-up of one of several processes that run the same command together (`jax.distributed`).

Processes work together on one mesh of all their devices, or apart: each on its own devices, with
its share of the work. Alone, none of this has an effect.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from qtts_jax.errors import ConfigError

Result = TypeVar("Result")

# How long to wait for the coordinator and for the other processes to start.
START_SECONDS = 300
# How long a process that is done waits for the others; one that died ends all much sooner.
END_SECONDS = 7 * 24 * 3600
# Exit status after Ctrl-C.
INTERRUPTED = 130

_apart = False
_several = False


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `start` reads."""
    group = parser.add_argument_group("several processes, each started with the same command")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="a free port of process 0's host")
    group.add_argument("--process", type=int, metavar="N", help="number of this process, from 0 on")
    group.add_argument("--processes", type=int, metavar="M", help="how many there are")
    group.add_argument(
        "--cluster",
        action="store_true",
        help="take these three from the environment of a TPU pod, GKE, Slurm or Open MPI",
    )


def start(args: argparse.Namespace, *, apart: bool = False, seconds: int = START_SECONDS) -> None:
    """Connect this process to the others that the options name, before any use of a device.

    Args:
        args: with the options of `add_options`; none of them given: nothing is done.
        apart: every process works by itself on its own devices.
        seconds: how long to wait for the coordinator and the other processes. JAX ends a process
            that waited in vain for others than the coordinator, with a message of its own.

    Raises:
        ConfigError: only some options are given, a number is out of range, the address has no port
            or cannot be listened at, the coordinator does not answer, or no cluster is found.
    """
    global _apart, _several
    named = {
        "--coordinator": args.coordinator,
        "--process": args.process,
        "--processes": args.processes,
    }
    missing = [name for name, value in named.items() if value is None]
    if args.cluster and len(missing) < len(named):
        given = ", ".join(name for name in named if name not in missing)
        raise ConfigError(f"--cluster finds out what {given} would say; leave one of them out.")
    if not args.cluster and len(missing) == len(named):
        return
    settings: dict[str, Any] = {}
    if not args.cluster:
        if missing:
            raise ConfigError(
                f"of the options of several processes {' and '.join(missing)} is missing; give "
                "--coordinator, --process and --processes, or --cluster alone."
            )
        settings = _checked(args.coordinator, args.process, args.processes, seconds)
    import jax  # here, so that the command line answers usage errors without loading JAX

    try:
        jax.distributed.initialize(
            **settings, initialization_timeout=seconds, shutdown_timeout_seconds=END_SECONDS
        )
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        if args.cluster:
            raise ConfigError(
                f"the environment describes no cluster that JAX knows ({_first_line(error)}); "
                "start the processes by the cluster's own launcher, or give --coordinator, "
                "--process and --processes."
            ) from error
        raise ConfigError(
            f"process {args.process} cannot start with the coordinator {args.coordinator} "
            f"({_first_line(error)}); name a free port of process 0's host."
        ) from error
    _apart, _several = apart, jax.process_count() > 1
    sys.excepthook = _end_after_traceback


def count() -> int:
    """How many processes there are; 1 where none was started."""
    return _jax().process_count() if _several else 1


def number() -> int:
    """The number of this process, from 0 on."""
    return _jax().process_index() if _several else 0


def together() -> bool:
    """Whether several processes run one program, on a mesh of all their devices."""
    return _several and not _apart


def writes() -> bool:
    """Whether this process writes what the program makes: one of those that work together does."""
    return not together() or number() == 0


def own_devices() -> list[Any] | None:
    """The devices of a process that works apart; None for all that there are."""
    return _jax().local_devices() if _several and _apart else None


def prefix() -> str:
    """What a line printed by this process begins with."""
    return f"process {number()}: " if _several else ""


def agreed(value: int) -> int:
    """The value that process 0 has, in all processes that work together; below 2^32."""
    if not together():
        return value
    import numpy as np
    from jax.experimental import multihost_utils  # slow to import

    return int(multihost_utils.broadcast_one_to_all(np.uint32(value)))


def wait_for_all(name: str) -> None:
    """Wait until all processes that work together are here."""
    if together():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def in_turn(function: Callable[[], Result]) -> Result:
    """Call a function in process 0, then in the others, which find the files that it wrote."""
    if number() and together():
        wait_for_all("process 0 is done")
        return function()
    result = function()
    wait_for_all("process 0 is done")
    return result


def peak_memory() -> int | None:
    """The most host memory that this process has had so far, bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def end_at_once(status: int) -> None:
    """End one of several processes with an exit status, and without waiting for the others.

    After a fault they would wait for its part of the computation. Without it JAX ends them, too.
    Alone, or apart unless it was interrupted, a process ends in the usual way.
    """
    if together() or (_several and status == INTERRUPTED):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _end_after_traceback(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    traceback.print_exception(kind, error, trace)
    end_at_once(1)


def _checked(address: str, process: int, processes: int, seconds: int) -> dict[str, Any]:
    """Arguments of `jax.distributed.initialize`, with a coordinator that answers."""
    if processes < 1 or not 0 <= process < processes:
        raise ConfigError(
            f"process {process} of {processes} does not exist; processes have the numbers 0 to "
            "--processes less 1."
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError(
            f"a coordinator is an address like host0:8476, with a port, not {address!r}."
        )
    if process:
        _wait_for_answer(host.strip("[]"), int(port), seconds)
    return {
        "coordinator_address": address,
        "num_processes": processes,
        "process_id": process,
        # What is not given is not looked for either: all devices of the host belong to the process.
        "cluster_detection_method": "deactivate",
    }


def _wait_for_answer(host: str, port: int, seconds: float) -> None:
    """Wait until something listens at an address; JAX would abort where nothing does."""
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
        except OSError as error:
            if time.monotonic() > end:
                raise ConfigError(
                    f"the coordinator {host}:{port} does not answer after {seconds:g} s ({error}); "
                    "start process 0 there, and open this port between the hosts."
                ) from error
            time.sleep(min(1.0, seconds / 10))
        else:
            return


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200].rstrip(".")


def _jax() -> Any:
    import jax

    return jax
