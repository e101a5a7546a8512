"""Whether a server survives bad clients: aborts, faulty bodies, slow readers, SIGTERM.

    python -m experiments.bench.serve_chaos --out experiments/results/serve_chaos.json

Starts `qtts serve` on this machine and sends it requests from many clients at once. A third are
aborted at random points; others have malformed or giant bodies, upload garbage, read slowly, or
interrupt a WebSocket (`rough_clients.py`). Then some streams are begun, and the process gets
SIGTERM. It counts the kinds of answers, and these faults, any of which makes the exit status 1:

- an answer that is wrong: codes other than those generated offline with the same seed, audio that
  differs by more than rounding, a status of 500, a faulty request that is not refused;
- a row, a thread or an open file that is still in use once the clients have gone;
- memory that grows by more than 5 % from a quarter of the requests to the last;
- a stream that SIGTERM cut, a new request that it let in, an exit status other than 0.

Expect about 5 minutes for 2,000 requests to nano on 2 idle CPU cores."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import platform
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from experiments import command
from experiments.bench.rough_clients import PATH, Clients, Spoken, check_audio
from experiments.bench.serve_process import ServerProcess
from qtts_jax.errors import QTTSError
from qtts_jax.serving.encoders import pcm16
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.voices import CustomVoice

TEXTS = ("Yes, of course.", "The train leaves at nine.", "She put the letter back.", "Turn left.")
SEEDS = (1, 2)
# Share by which memory may grow from a quarter of the requests to the last.
MEMORY = 0.05
# Threads and files that come and go with the clients of the last second.
SPARE_THREADS, SPARE_FILES = 2, 2
STREAMS = 4
DRAIN = 90


def right_answers(tts: QwenTTS, max_new_tokens: int) -> list[Spoken]:
    """Requests for every text with every seed, generated offline."""
    cases = [(text, seed) for text in TEXTS for seed in SEEDS]
    sampling = {"max_new_tokens": max_new_tokens}
    language = "english"
    speeches = tts.generate(
        [
            CustomVoice(text, tts.default_speaker, language, seed=seed, sampling=sampling)
            for text, seed in cases
        ]
    )
    return [
        Spoken(
            {"input": text, "seed": seed, "language": language, "response_format": "pcm"}
            | sampling,
            speech.codes,
            pcm16(speech.wave),
        )
        for (text, seed), speech in zip(cases, speeches, strict=True)
    ]


class Chaos:
    """Requests of many clients to one server, and the faults found.

    Args:
        server: is ready.
        spoken: requests with their right answers.
        seed: of everything random.

    Attributes:
        kinds: answers by kind.
        faults: one sentence each.
    """

    def __init__(self, server: ServerProcess, spoken: list[Spoken], seed: int) -> None:
        self._server, self._spoken, self._seed = server, spoken, seed
        self._clients = Clients(server.host, server.port, spoken)
        self.kinds: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []

    def send(self, numbers: range, clients: int) -> None:
        """Send the requests of these numbers from `clients` threads."""
        left, lock = iter(numbers), threading.Lock()

        def client() -> None:
            while True:
                with lock:
                    number = next(left, None)
                if number is None or not self._server.alive:
                    return
                kind = self._one(number)
                with lock:
                    self.kinds[kind] += 1

        _together([client] * clients)
        if not self._server.alive:
            self.faults.append("the server crashed.")

    def _one(self, number: int) -> str:
        draw = random.Random(f"{self._seed} {number}")
        try:
            return self._clients.one(draw)
        except Exception as error:  # each is a fault of the server
            self.faults.append(f"request {number}: {type(error).__name__}: {error}")
            return "wrong"

    def terminate(self) -> None:
        """Send SIGTERM while streams are being spoken, and check that they end whole."""
        begun = threading.Barrier(STREAMS + 1)

        def stream(spoken: Spoken) -> None:
            url = self._server.url + PATH
            try:
                with requests.post(url, json=spoken.body, stream=True, timeout=DRAIN) as answer:
                    parts = answer.iter_content(chunk_size=None)
                    content = next(parts)
                    begun.wait()
                    content += b"".join(parts)
                check_audio(content, spoken)
            except Exception as error:
                begun.abort()
                self.faults.append(f"a stream during SIGTERM: {type(error).__name__}: {error}")

        def end() -> None:
            with contextlib.suppress(threading.BrokenBarrierError):
                begun.wait()
            self._server.terminate()
            time.sleep(0.2)
            if self._is_served():
                self.faults.append("a request that came after SIGTERM was served.")

        _together([end, *[lambda i=i: stream(self._spoken[i]) for i in range(STREAMS)]])
        status = self._server.wait(DRAIN)
        if status != 0:
            self.faults.append(f"after SIGTERM the exit status is {status}, not 0.")

    def _is_served(self) -> bool:
        try:
            url = self._server.url + PATH
            return requests.post(url, json=self._spoken[0].body, timeout=DRAIN).ok
        except requests.RequestException:
            return False


def _together(functions: Sequence[Any]) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(
    options: Sequence[str],
    tts: QwenTTS,
    requests_sent: int,
    clients: int,
    max_new_tokens: int,
    seed: int,
) -> dict[str, Any]:
    """Counts of the answers and all faults of one server.

    Args:
        options: of `qtts serve`.
        tts: the checkpoint that it serves.
        max_new_tokens: of every request.
        seed: of everything random.
    """
    spoken = right_answers(tts, max_new_tokens)
    with ServerProcess(options) as server:
        chaos, begin = Chaos(server, spoken, seed), time.perf_counter()
        quarter = requests_sent // 4
        chaos.send(range(quarter), clients)
        server.settle()
        before = {"memory_mib": server.memory, "threads": server.threads, "files": server.files}
        chaos.send(range(quarter, requests_sent), clients)
        wall = time.perf_counter() - begin
        rows = server.settle()
        after = {"memory_mib": server.memory, "threads": server.threads, "files": server.files}
        if rows:
            chaos.faults.append(f"{rows:g} requests are still in the engine without a client.")
        if after["memory_mib"] > (1 + MEMORY) * before["memory_mib"]:
            chaos.faults.append("memory grew.")
        if after["threads"] > before["threads"] + SPARE_THREADS:
            chaos.faults.append("threads are left.")
        if after["files"] > before["files"] + SPARE_FILES:
            chaos.faults.append("open files are left.")
        chaos.terminate()
    return {
        "requests": requests_sent,
        "clients": clients,
        "seed": seed,
        "seconds": round(wall, 1),
        "answers": dict(sorted(chaos.kinds.items())),
        "after_a_quarter": before,
        "after_all": after,
        "faults": chaos.faults,
    }


def main() -> None:
    """Run the test and write its figures."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--model", type=Path, help="converted checkpoint (default: nano)")
    parser.add_argument("--requests", type=int, default=2000, help="number of requests")
    parser.add_argument("--clients", type=int, default=24, help="clients at once")
    parser.add_argument("--rows", type=int, default=8, help="rows of the server")
    parser.add_argument("--max-new-tokens", type=int, default=26, help="of each request")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--out", type=Path, help="JSON file (default: printed only)")
    args: argparse.Namespace = parser.parse_args()
    options = ["--rows", str(args.rows)]
    options += [] if args.model is None else ["--model", str(args.model)]
    result = measure(
        options,
        QwenTTS.from_pretrained(args.model),
        args.requests,
        args.clients,
        args.max_new_tokens,
        args.seed,
    )
    result |= {"machine": f"{os.cpu_count()} cores, {platform.machine()}"}
    text = json.dumps(result, indent=1)
    print(text, flush=True)
    if args.out is not None:
        args.out.write_text(text + "\n")
    if result["faults"]:
        raise QTTSError(f"{len(result['faults'])} faults.")


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
