"""A server as a process of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import time

import requests


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextlib.contextmanager
def server_process(command, port, log, seconds=300, **environment):
    """The process of a command, once `/ready` answers 200 on a port; ended with the block.

    Args:
        log: file for what it prints.
        seconds: after which a server that is not ready is a fault.
        environment: variables besides those of this process.
    """
    with open(log, "w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    process.url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + seconds
    try:
        while not _ready(process.url):
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-5000:]
            time.sleep(0.5)
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
        process.wait()


def _ready(url):
    try:
        return requests.get(f"{url}/ready", timeout=5).status_code == 200
    except requests.RequestException:
        return False
