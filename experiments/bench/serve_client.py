"""Library of `serve`: a client that sends one request, and many of them in several processes."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import requests

from experiments import command
from experiments.bench.serve_answers import Answer, Audibility
from qtts_jax.errors import QTTSError

PATH = "/v1/audio/speech"
TIMEOUT = 120
# Seconds from the time at which all processes wait for a run to its start.
LEAD = 0.3

Body = dict[str, Any]


def connect(headers: dict[str, str]) -> requests.Session:
    """A session that keeps its connection from one request to the next."""
    session = requests.Session()
    session.headers.update(headers)
    session.trust_env = False  # proxies and .netrc would be looked up for every request
    return session


def send(session: requests.Session, url: str, body: Body) -> Answer:
    """Send one request to a server and read its answer."""
    answer, is_audible = Answer(), Audibility()
    start, count = time.perf_counter(), 0
    try:
        with session.post(url + PATH, json=body, stream=True, timeout=TIMEOUT) as response:
            if not response.ok:
                answer.fault = f"status {response.status_code}"
                return answer
            for part in response.iter_content(chunk_size=None):
                now = time.perf_counter() - start
                count += len(part)
                answer.arrivals.append((now, count))
                if answer.audible is None and is_audible(part):
                    answer.audible = now
    except requests.RequestException as error:
        answer.fault = type(error).__name__
    if not answer.arrivals and answer.fault is None:
        answer.fault = "no audio"
    return answer


@dataclass(frozen=True)
class Part:
    """What one process does in a run.

    Attributes:
        bodies: of its requests.
        due: when each is sent, in seconds from the start of the run; None for a closed loop.
        clients: of a closed loop.
    """

    bodies: list[Body]
    due: list[float] | None = None
    clients: int = 0


class Clients:
    """Clients of one server, spread over processes of their own, for a `with` block.

    One process would be slower than the server: its threads take turns.

    Args:
        url: of the server.
        headers: of every request.
        processes: how many.
    """

    def __init__(self, url: str, headers: dict[str, str], processes: int) -> None:
        # Not forked, which would copy whatever threads and locks this process has.
        spawn = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = spawn.Pipe()
            self._pipes.append(ours)
            self._processes.append(
                spawn.Process(target=_work, args=(theirs, url, headers), daemon=True)
            )
            self._processes[-1].start()
            theirs.close()

    def __enter__(self) -> Clients:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def open(self, bodies: Sequence[Body], due: Sequence[float]) -> tuple[list[Answer], float]:
        """Send each request when it is due, whatever became of the ones before it.

        Returns:
            the answers, in no order, and the seconds of the run.
        """
        step = len(self._pipes)
        return self._run([Part(list(bodies[i::step]), list(due[i::step])) for i in range(step)])

    def closed(self, bodies: Sequence[Body], clients: int) -> tuple[list[Answer], float]:
        """Send the requests by `clients` clients, each its next one when an answer is complete.

        Returns:
            as `open`.
        """
        step, parts = len(self._pipes), []
        for i in range(step):
            mine = range(i, clients, step)
            dealt = [body for j, body in enumerate(bodies) if j % clients in mine]
            parts.append(Part(dealt, None, len(mine)))
        return self._run(parts)

    def _run(self, parts: list[Part]) -> tuple[list[Answer], float]:
        answers, ends = list[Answer](), list[float]()
        try:
            for pipe, part in zip(self._pipes, parts, strict=True):
                pipe.send(part)
            for pipe in self._pipes:
                pipe.recv()  # it waits for the time of the start
            start = time.time() + LEAD
            for pipe in self._pipes:
                pipe.send(start)
            for pipe in self._pipes:
                found, end = pipe.recv()
                answers += found
                ends.append(end)
        except (EOFError, OSError) as error:
            raise QTTSError("a process of clients ended; its own message says why.") from error
        return answers, max(ends)


def _work(pipe: Connection, url: str, headers: dict[str, str]) -> None:
    """One process: answers each part that comes with its answers and the seconds it took."""
    while True:
        part: Part = pipe.recv()
        pipe.send(None)
        # The clock of the machine, which all processes share, and then one that is never set.
        start = time.perf_counter() + pipe.recv() - time.time()
        run = _closed if part.due is None else _open
        answers = run(part, url, headers, start)
        pipe.send((answers, time.perf_counter() - start if answers else 0.0))


def _open(part: Part, url: str, headers: dict[str, str], start: float) -> list[Answer]:
    answers, threads = list[Answer](), list[threading.Thread]()

    def client(body: Body, due: float) -> None:
        with connect(headers) as session:
            late = time.perf_counter() - due
            answer = send(session, url, body)
        answer.late = late
        answers.append(answer)

    for body, due in zip(part.bodies, part.due or [], strict=True):
        _sleep_until(start + due)
        threads.append(threading.Thread(target=client, args=(body, start + due)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return answers


def _closed(part: Part, url: str, headers: dict[str, str], start: float) -> list[Answer]:
    answers, left, lock = list[Answer](), iter(part.bodies), threading.Lock()

    def client() -> None:
        with connect(headers) as session:
            _sleep_until(start)
            while True:
                with lock:
                    body = next(left, None)
                if body is None:
                    return
                answers.append(send(session, url, body))

    threads = [threading.Thread(target=client) for _ in range(part.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.perf_counter()))


if __name__ == "__main__":
    users = [f"experiments.bench.{name}" for name in ("serve", "serve_soak")]
    raise SystemExit(command.exit_status_of_library(__file__, *users))
