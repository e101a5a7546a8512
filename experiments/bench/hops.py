"""Number of moves of control between package files while a request is processed.

    python -m experiments.bench.hops            # the embedded checkpoint
    python -m experiments.bench.hops -o hops.json

Five trips run once to compile everything and once under a profiler (`sys.setprofile`). A hop is a
move of control from one file of `qtts_jax` to another, the return included; calls count entered
functions of the package. Nothing inside a compiled program counts. Files of decorators and context
managers count like any other."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import qtts_jax.embedded
from experiments import command
from qtts_jax import QwenTTS

PACKAGE = str(Path(qtts_jax.__file__).parent)
TEXT = "Hello there, how are you?"
OPTIONS: dict[str, Any] = {"seed": 1, "max_new_tokens": 20, "normalize": False}
REFERENCE_SECONDS = 2.0


class HopCounter:
    """Counts moves of control between package files while it is active (`with`).

    Attributes:
        path: package files in the order in which control enters them.
        calls: functions of the package that were entered.
    """

    def __init__(self) -> None:
        self.path: list[str] = []
        self.calls = 0

    def __enter__(self) -> HopCounter:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    @property
    def hops(self) -> int:
        """Moves of control, returns included."""
        return max(0, len(self.path) - 1)

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return"):
            return
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(PACKAGE):
            self.calls += 1
            self._enter(file)
        elif event == "return":
            # Control goes back to the nearest caller of the package.
            caller = frame.f_back
            while caller is not None and not caller.f_code.co_filename.startswith(PACKAGE):
                caller = caller.f_back
            if file.startswith(PACKAGE) and caller is not None:
                self._enter(caller.f_code.co_filename)

    def _enter(self, file: str) -> None:
        name = str(Path(file).relative_to(PACKAGE))
        if not self.path or self.path[-1] != name:
            self.path.append(name)


def trips(tts: QwenTTS) -> dict[str, Callable[[], object]]:
    """The five trips of the embedded checkpoint."""
    codec, speaker = tts.speech_tokenizer, tts.supported_speakers[0]
    rate = codec.input_sample_rate
    noise = np.random.default_rng(0).standard_normal(int(REFERENCE_SECONDS * rate))
    wave = (0.1 * noise).astype(np.float32)
    codes = codec.encode((wave, rate))[0]
    return {
        "text -> wave": lambda: tts.generate_custom_voice(TEXT, speaker, **OPTIONS),
        "text -> stream": lambda: list(tts.stream_custom_voice(TEXT, speaker, **OPTIONS)),
        "in-context clone": lambda: tts.generate_voice_clone(
            TEXT, ref_audio=(wave, rate), ref_text="Some words.", **OPTIONS
        ),
        "wave -> codes": lambda: codec.encode((wave, rate)),
        "codes -> wave": lambda: codec.decode(codes),
    }


def main() -> None:
    """Count and print."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("-v", "--verbose", action="store_true", help="print the files in order")
    parser.add_argument("-o", "--output", type=Path, help="write the counts as JSON")
    args = parser.parse_args()
    results: dict[str, dict[str, int]] = {}
    for name, run in trips(QwenTTS.from_pretrained(qtts_jax.embedded.DIRECTORY)).items():
        run()  # compiles
        with HopCounter() as counter:
            run()
        files = len(set(counter.path))
        results[name] = {"files": files, "hops": counter.hops, "calls": counter.calls}
        print(f"{name:18} {files:3} files {counter.hops:4} hops {counter.calls:4} calls")
        if args.verbose:
            print("   ", " ".join(counter.path))
    if args.output is not None:
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
