"""Library of the commands that load a server: it as a process, and what that process holds."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType

import requests

from experiments import command
from qtts_jax.errors import QTTSError

MIB = 2**20
# Seconds until a server is ready: the first start on a machine compiles every program, for a GPU
# and many rows some hundred of them.
START = 1500
# Seconds until an idle server has freed what its last clients held.
SETTLE = 60


class ServerProcess:
    """A server on a free port of this machine, for a `with` block that begins once it is ready.

    Args:
        options: of the server.
        module: what `python -m` runs, with its first arguments: `qtts serve`, or a command that
            takes the same options.

    Attributes:
        url: of the server.

    Raises:
        QTTSError: it ends, or is not ready in time.
    """

    def __init__(
        self, options: Sequence[str] = (), module: Sequence[str] = ("qtts_jax", "serve")
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.host, self.port = "127.0.0.1", port
        self.url = f"http://{self.host}:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", *module, "--port", str(port), *options]
        )

    def __enter__(self) -> ServerProcess:
        end = time.monotonic() + START
        while not self._is_ready():
            if self._process.poll() is not None:
                raise QTTSError(
                    f"the server ended with status {self._process.returncode} before it was "
                    "ready; its own message says why."
                )
            if time.monotonic() > end:
                self._process.kill()
                raise QTTSError(f"the server was not ready after {START} s.")
            time.sleep(0.3)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.alive:
            self._process.kill()
        self._process.wait()

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/ready", timeout=30).status_code == 200
        except requests.RequestException:
            return False

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def memory(self) -> float:
        """Resident memory, MiB."""
        with open(f"/proc/{self._process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB

    @property
    def files(self) -> int:
        """Open files, sockets included."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    @property
    def threads(self) -> int:
        """Threads of the process."""
        return len(os.listdir(f"/proc/{self._process.pid}/task"))

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        text = requests.get(f"{self.url}/metrics", timeout=60).text
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        if found is None:
            raise QTTSError(f"the server has no metric {name}.")
        return float(found[1])

    def settle(self) -> float:
        """Wait until no row is in use and no request waits: rows that are left after `SETTLE`."""
        end = time.monotonic() + SETTLE
        while True:
            left = self.metric("qtts_rows_in_use") + self.metric("qtts_requests_waiting")
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.1)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> int | None:
        """The exit status; None when it still runs after that time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


if __name__ == "__main__":
    users = [f"experiments.bench.{name}" for name in ("serve", "serve_chaos", "serve_soak")]
    raise SystemExit(command.exit_status_of_library(__file__, *users))
