"""Starts the same command in two processes of four virtual devices each, and collects both.

    python -m tests.support.two_processes PROCESS PORT inference|restore|train ARGUMENTS

is one of them; `run_two` starts both.
"""

import argparse
import json
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.helpers import virtual_devices


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start_two(command, seconds=240):
    """Two processes of `command(number, port)`, started."""
    port = free_port()
    environment = virtual_devices(4)
    return [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, command(number, port))],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]


def finish_two(both, seconds=240):
    """(exit status, stdout, stderr) of both; they are killed after so many seconds."""
    try:
        outputs = [process.communicate(timeout=seconds) for process in both]
    finally:
        for process in both:
            process.kill()
    return [(p.returncode, *out) for p, out in zip(both, outputs, strict=True)]


def run_two(what, *arguments):
    """What `main` prints as JSON in each of the two processes."""
    results = finish_two(
        start_two(lambda n, port: ["tests.support.two_processes", n, port, what, *arguments])
    )
    for status, _, errors in results:
        assert status == 0, errors[-4000:]
    return [json.loads(out.splitlines()[-1]) for _, out, _ in results]


def inference(meshes):
    """Codes and audio on meshes of both processes against those on one device of this one."""
    from tests.support.inference_on_eight_devices import compare

    return compare("12hz", json.loads(meshes), streams=False)


def main():
    from qtts_jax import processes

    number, port, what, *arguments = sys.argv[1:]
    options = argparse.Namespace(
        coordinator=f"127.0.0.1:{port}", process=int(number), processes=2, cluster=False
    )
    processes.start(options)
    functions = {"inference": inference}
    print(json.dumps(functions[what](*arguments)))


if __name__ == "__main__":
    main()
