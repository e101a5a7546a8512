"""Library of `serve_chaos`: clients of a speech server, most of which misbehave."""

from __future__ import annotations

import base64
import json
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from experiments import command

TIMEOUT = 120
PATH = "/v1/audio/speech"
MALFORMED = (
    b"",
    b"{" * 50,
    b'{"input": "Half a ',
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b"null",
    b'{"input": 5}',
    b'{"input": ""}',
    b'{"input": "\\ud800"}',
    b'{"input": "Text.", "surplus": 1}',
    b'{"input": "Text.", "temperature": NaN}',
    b'{"input": "Text.", "temperature": 1e999}',
    b'{"input": "Text.", "seed": -1}',
    b'{"input": "Text.", "seed": ' + b"9" * 5000 + b"}",
    b'{"input": "Text.", "max_new_tokens": 0}',
    b'{"input": "Text.", "chunk_frames": 0}',
    b'{"input": "Text.", "voice": "\\ud800"}',
    b'{"input": "Text.", "ref_audio": "file:///etc/passwd"}',
    b'{"input": "Text.", "response_format": "exe"}',
)


@dataclass(frozen=True)
class Spoken:
    """A request and the answer that it must get.

    Attributes:
        body: of `POST /v1/audio/speech`.
        codes: int [T, Q], generated offline.
        samples: int16 [n], their audio.
    """

    body: dict[str, Any]
    codes: np.ndarray
    samples: np.ndarray


class Clients:
    """One client of every kind; each method is one request, with a random number generator.

    A method returns what happened, "busy" for an answer of 429, and raises `AssertionError` for an
    answer that is wrong.

    Args:
        host, port: of the server.
        spoken: requests with their right answers.
    """

    def __init__(self, host: str, port: int, spoken: list[Spoken]) -> None:
        self._host, self._port, self._spoken = host, port, spoken
        self._url = f"http://{host}:{port}"
        kinds: dict[Callable[[random.Random], str], int] = {
            self.whole: 26,
            self.events: 16,
            self.slow: 6,
            self.aborted: 33,
            self.malformed: 6,
            self.giant: 4,
            self.garbage: 5,
            self.interrupting: 4,
        }
        self._kinds, self._weights = list(kinds), list(kinds.values())

    def one(self, draw: random.Random) -> str:
        """A client of a random kind."""
        (kind,) = draw.choices(self._kinds, self._weights)
        return kind(draw)

    def whole(self, draw: random.Random) -> str:
        """Reads its audio to the end; it must be the offline audio."""
        return self._read(draw.choice(self._spoken), pause=0.0)

    def slow(self, draw: random.Random) -> str:
        """Reads a few kilobytes at a time, with pauses that exceed the time of their audio."""
        return self._read(draw.choice(self._spoken), pause=0.1 + 0.2 * draw.random())

    def _read(self, spoken: Spoken, pause: float) -> str:
        content = bytearray()
        with self._post(spoken.body) as answer:
            if answer.status_code == 429:
                return "busy"
            assert answer.status_code == 200, answer.text
            for part in answer.iter_content(chunk_size=4096 if pause else None):
                content += part
                time.sleep(pause)
        check_audio(bytes(content), spoken)
        return "whole"

    def events(self, draw: random.Random) -> str:
        """Reads server-sent events; codes must be the offline codes, and the last event `done`."""
        spoken, codes, audio = draw.choice(self._spoken), [], b""
        body = spoken.body | {"stream_format": "sse", "include_codes": True}
        with self._post(body) as answer:
            if answer.status_code == 429:
                return "busy"
            assert answer.status_code == 200, answer.text
            events = [json.loads(line[6:]) for line in answer.iter_lines() if line[:6] == b"data: "]
        assert events[-1]["type"] == "speech.audio.done", events[-1]
        for event in events[:-1]:
            audio += base64.b64decode(event["audio"])
            codes += event["codes"]
        assert np.array_equal(codes, spoken.codes), "these are not the offline codes"
        check_audio(audio, spoken)
        return "whole"

    def aborted(self, draw: random.Random) -> str:
        """Closes or resets its connection before, in or after its request, or in the answer."""
        spoken = draw.choice(self._spoken)
        body = json.dumps(spoken.body).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        message = head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        point = draw.choice(("request", "wait", "answer", "answer"))
        with socket.create_connection((self._host, self._port), TIMEOUT) as connection:
            sent = draw.randrange(len(message)) if point == "request" else len(message)
            connection.sendall(message[:sent])
            if point == "wait":
                time.sleep(0.3 * draw.random())
            elif point == "answer":
                left = draw.randrange(1, 2 * len(spoken.samples))
                while left > 0 and (part := connection.recv(min(left, 4096))):
                    left -= len(part)
            if draw.random() < 0.5:  # a reset instead of an orderly close
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return "aborted"

    def malformed(self, draw: random.Random) -> str:
        """Sends a body that is no request, or one with faulty fields; it must be refused."""
        body = draw.choice(MALFORMED)
        headers = {"Content-Type": "application/json"}
        answer = requests.post(self._url + PATH, data=body, headers=headers, timeout=TIMEOUT)
        assert answer.status_code == 400, f"{answer.status_code} for {body[:80]!r}"
        return "refused"

    def giant(self, draw: random.Random) -> str:
        """Sends 20 MB, with their length or in chunks without; the server may hang up meanwhile."""
        part = b" " * 2**20
        body = (part for _ in range(20)) if draw.random() < 0.5 else 20 * part
        try:
            answer = requests.post(self._url + PATH, data=body, timeout=TIMEOUT)
        except requests.ConnectionError:
            return "refused"
        assert answer.status_code == 413, answer.status_code
        return "refused"

    def garbage(self, draw: random.Random) -> str:
        """Uploads bytes that are no recording as a voice or as a reference; they must be refused.

        Some begin as a WAV, FLAC, MP3 or Ogg file does.
        """
        start = draw.choice((b"", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"fLaC", b"ID3\x04", b"OggS"))
        content = start + draw.randbytes(draw.choice((0, 10, 1000, 300_000)))
        if draw.random() < 0.5:
            answer = requests.post(
                f"{self._url}/v1/audio/voices",
                data={"name": f"voice{draw.randrange(10**6)}", "ref_text": "Words."},
                files={"audio": ("a.wav", content)},
                timeout=TIMEOUT,
            )
        else:
            audio = base64.b64encode(content).decode()
            body = {"input": "Text.", "ref_audio": audio, "ref_text": "Words."}
            answer = requests.post(self._url + PATH, json=body, timeout=TIMEOUT)
        assert answer.status_code == 400, f"{answer.status_code} for {content[:20]!r}"
        return "refused"

    def interrupting(self, draw: random.Random) -> str:
        """Sends text and faulty messages to a WebSocket, interrupts, and leaves without a word."""
        spoken = draw.choice(self._spoken)
        voicing = {k: v for k, v in spoken.body.items() if k not in ("input", "response_format")}
        words = ({"type": "input.text", "text": f"{word} "} for word in ("One", "two", "three."))
        faulty = ("{", "[" * 100_000, "5", '{"type": "none"}', '{"type": "input.text", "text": 5}')
        try:
            with connect(
                f"ws://{self._host}:{self._port}{PATH}/stream", open_timeout=TIMEOUT
            ) as websocket:
                websocket.send(json.dumps({"type": "session.config", **voicing}))
                websocket.send(draw.choice(faulty))
                for message in words:
                    websocket.send(json.dumps(message))
                received = draw.randrange(4)
                if received == 3:  # audio may wait for the end of the text
                    websocket.send('{"type": "input.done"}')
                for _ in range(received):
                    websocket.recv(timeout=TIMEOUT)
                if draw.random() < 0.5:
                    websocket.send('{"type": "input.cancel"}')
                    websocket.send(b"bytes")
                    websocket.recv(timeout=TIMEOUT)
        except WebSocketException as error:
            raise AssertionError(f"the WebSocket was closed: {error}") from error
        return "aborted"

    def _post(self, body: dict[str, Any]) -> requests.Response:
        return requests.post(self._url + PATH, json=body, stream=True, timeout=TIMEOUT)


def check_audio(content: bytes, spoken: Spoken) -> None:
    """Check 16-bit samples against the offline audio.

    Batch sizes of the decoder differ, and with them the rounding of float32: by one of 32,768.
    """
    assert len(content) == 2 * len(spoken.samples), (
        f"{len(content)} bytes instead of {2 * len(spoken.samples)}"
    )
    error = np.frombuffer(content, "<i2").astype(int) - spoken.samples
    assert np.max(np.abs(error), initial=0) <= 1, "this is not the offline audio"


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.bench.serve_chaos"))
