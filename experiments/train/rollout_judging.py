"""Library of `post_train` and `post_training`: speech of prompts, its scores and its rewards.

Expected durations and voices are those of the model before post-training: the mean of a few draws
of each prompt, and the longest speech of each speaker. So `likeness` and `length` keep what was
there, and recordings are not needed.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import command
from qtts_jax import compilation_cache
from qtts_jax.errors import DataError
from qtts_jax.evaluation.bootstrap import Score
from qtts_jax.evaluation.judges.distill_mos import DistillMOSJudge
from qtts_jax.evaluation.judges.package import installed_version
from qtts_jax.evaluation.judges.speaker import SpeakerJudge
from qtts_jax.evaluation.judges.whisper import WhisperJudge
from qtts_jax.evaluation.judges.whisper_batch import WhisperBatchJudge
from qtts_jax.evaluation.panel import KINDS, Judge, Panel, transcript_scores, usable
from qtts_jax.evaluation.rewards import RewardMix
from qtts_jax.evaluation.sample import Sample, load_mono_16k
from qtts_jax.generation.request import Request
from qtts_jax.text.spoken import normalize
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.synthesis import Speech

# Draws of each prompt whose mean duration is expected of later speech.
DRAWS = 3
START = "start.npz"
FRONT_END_LANGUAGE = "english"
# Whisper repeats a phrase without end for some speech. Text that compresses better than this is
# such a loop (arXiv:2212.04356, section 4.5).
LOOP = 2.4
DEVICE_JUDGES = ("asr", "speaker", "mos")
# Of the judges on devices: a transcript or an opinion does not depend on the last bits.
PRECISION = "default"
THREADS = 8  # that resample and look for silence


@dataclass(frozen=True)
class Expected:
    """What speech of each prompt is compared with.

    Attributes:
        seconds: [prompts], mean duration.
        voices: recordings [T] at 16 kHz by speaker; "" for prompts without one.
    """

    seconds: np.ndarray
    voices: Mapping[str, np.ndarray]


def asr() -> Judge:
    """`panel.asr` on spoken forms: "10:30" in a transcript equals "ten thirty" in the text."""
    whisper = WhisperJudge()

    def score(sample: Sample) -> dict[str, Score]:
        words = whisper.transcribe(sample.wave, sample.language) if len(sample.wave) else ""
        return spoken_scores(sample.text, words, sample.language)

    return score


def spoken_scores(text: str, transcript: str, language: str) -> dict[str, Score]:
    """Scores of a transcript against a text, both in spoken form."""
    spoken = _spoken if language == FRONT_END_LANGUAGE else str
    return transcript_scores(spoken(text), spoken(transcript), language)


# Speech of a group has one text and often one transcript.
_spoken = functools.lru_cache(maxsize=2**16)(normalize)


def loops(transcript: str) -> bool:
    """Whether a transcript repeats itself without end."""
    text = transcript.encode()
    return len(text) > LOOP * len(zlib.compress(text))


def load_panel(judges: Sequence[str], memo: Path | None = None) -> Panel:
    """A panel with the word errors of `asr` above.

    Raises:
        EvaluationError: a package is missing.
    """
    versions = {
        name: ", ".join(f"{p} {installed_version(p)}" for p in KINDS[name].packages)
        for name in judges
    }
    if "asr" in versions:
        versions["asr"] += ", spoken forms"
    makers = {name: KINDS[name].make for name in judges} | {"asr": asr}
    return Panel({name: makers[name]() for name in judges}, versions, memo)


def language_of(prompt: Mapping[str, str]) -> str:
    """The language of a prompt.

    Raises:
        DataError: it names none, so its words cannot be judged.
    """
    if "language" not in prompt:
        raise DataError(
            f"the prompt {prompt['text']!r} names no language, which its transcript needs; add one."
        )
    return prompt["language"].lower()


def seeded(requests: Sequence[Request], seed: int) -> list[Request]:
    """The requests with seeds that follow from one number."""
    seeds = np.random.default_rng(seed).integers(0, 2**32, len(requests))
    return [replace(r, seed=int(s)) for r, s in zip(requests, seeds, strict=True)]


def waves_at_16k(spoken: Sequence[Speech], rate: int) -> list[np.ndarray]:
    """The waves [T] of speech at `rate` Hz, as the judges take them."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda s: load_mono_16k((np.clip(s.wave, -1, 1), rate)), spoken))


def expectations(
    tts: QwenTTS,
    prompts: Sequence[Mapping[str, str]],
    requests: Sequence[Request],
    rows: int,
    kept: Path,
) -> Expected:
    """What the model before post-training makes of the prompts, kept in a file for later sessions.

    Args:
        tts: that model.
        rows: requests at once.
    """
    file = kept / START
    if not file.is_file():
        requested = [r for seed in range(DRAWS) for r in seeded(requests, seed)]
        waves = [
            wave
            for first in range(0, len(requested), rows)
            for wave in waves_at_16k(
                tts.synthesize(requested[first : first + rows]), tts.sample_rate
            )
        ]
        lengths = np.asarray([len(w) for w in waves]).reshape(DRAWS, -1)
        longest: dict[str, np.ndarray] = {}
        for i, wave in enumerate(waves):
            name = prompts[i % len(prompts)].get("speaker", "")
            if len(wave) > len(longest.get(name, "")):
                longest[name] = wave
        kept.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npz")
        voices = {f"voice {name}": wave for name, wave in longest.items()}
        np.savez_compressed(partial, seconds=lengths.mean(axis=0) / 16_000, **voices)
        partial.replace(file)
    with np.load(file) as found:
        if len(found["seconds"]) != len(prompts):
            raise DataError(f"{file} belongs to other prompts; use another --out.")
        voices = {k.removeprefix("voice "): found[k] for k in found if k.startswith("voice ")}
        return Expected(found["seconds"], voices)


Take = tuple[int, np.ndarray, float, bool]
"""Number of the prompt, wave [T] of its speech at 16 kHz, its seconds, whether that ended."""


class Judging:
    """Scores speech of prompts by their numbers.

    Args:
        judges: kinds of `load_panel`.
        sample_rate: of the speech.
        memo: file that keeps the scores.
        processes: at once, each with judges of its own, one thread and no accelerator; 1 judges in
            this process.
        devices: let `asr`, `speaker` and `mos` score all speech at once on the devices of this
            process, the words without a beam (`judges/whisper_batch.py`; with one where that
            repeats itself) and nothing kept.

    Raises:
        EvaluationError: a package is missing.
        DataError: a prompt names no language.
    """

    def __init__(
        self,
        judges: Sequence[str],
        prompts: Sequence[Mapping[str, str]],
        expected: Expected,
        sample_rate: int,
        memo: Path | None = None,
        processes: int = 1,
        devices: bool = False,
    ) -> None:
        self._prompts, self._expected, self._rate = prompts, expected, sample_rate
        self._languages = [language_of(prompt) for prompt in prompts]
        self._pool = self._whisper = self._beam = self._opinions = self._embedder = None
        if devices and "asr" in judges:
            self._whisper = WhisperBatchJudge(precision=PRECISION)
        if devices and "mos" in judges:
            self._opinions = DistillMOSJudge()
        if devices and "speaker" in judges:
            self._embedder = SpeakerJudge()
            names = [name for name, wave in expected.voices.items() if usable(wave)]
            found = self._embedder.embed_all([expected.voices[name] for name in names])
            self._voices = dict(zip(names, found, strict=True))
        judges = [name for name in judges if not devices or name not in DEVICE_JUDGES]
        # Durations alone are no work for other processes.
        if processes == 1 or (devices and set(judges) <= {"duration"}):
            self._panel = load_panel(judges, memo)
            return
        spawn = multiprocessing.get_context("spawn")
        own = (judges, prompts, expected, sample_rate, memo)
        self._pool = ProcessPoolExecutor(processes, spawn, _begin, own)

    def scores(self, numbers: Sequence[int], spoken: Sequence[Speech]) -> list[dict[str, Score]]:
        """Scores of each speech, `no_eos` and `seconds` among them."""
        waves = waves_at_16k(spoken, self._rate)
        takes: list[Take] = [
            (number, wave, len(speech.wave) / self._rate, speech.ended)
            for number, wave, speech in zip(numbers, waves, spoken, strict=True)
        ]
        # The longest first, so that no process begins one when the others are done.
        order = sorted(range(len(takes)), key=lambda i: -takes[i][2])
        score = self._score if self._pool is None else _score_there
        ordered = [takes[i] for i in order]
        # Processes score while this one uses the devices; they start with their first work.
        with _held_signals():
            found = map(score, ordered) if self._pool is None else self._pool.map(score, ordered)
        mine = self._scores_of_devices(numbers, waves)
        by_place = dict(zip(order, found, strict=True))
        return [by_place[i] | mine[i] for i in range(len(takes))]

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown()

    def rewards(
        self, mix: RewardMix, numbers: Sequence[int], spoken: Sequence[Speech]
    ) -> dict[str, np.ndarray]:
        """Rewards of each speech by name, the weighted sum `reward` among them: [N] each."""
        found = [mix.rewards(scores) for scores in self.scores(numbers, spoken)]
        return {name: np.asarray([f[name] for f in found]) for name in found[0]}

    def _scores_of_devices(
        self, numbers: Sequence[int], waves: Sequence[np.ndarray]
    ) -> list[dict[str, Score]]:
        """Scores by the judges on the devices of this process, none without them."""
        found: list[dict[str, Score]] = [{} for _ in waves]
        if self._embedder is not None:
            speakers = [self._prompts[number].get("speaker", "") for number in numbers]
            chosen = [
                i for i, wave in enumerate(waves) if usable(wave) and speakers[i] in self._voices
            ]
            embedded = self._embedder.embed_all([waves[i] for i in chosen], THREADS)
            for i, embedding in zip(chosen, embedded, strict=True):
                found[i]["sim"] = (float(embedding @ self._voices[speakers[i]]), 1)
        if self._whisper is not None:
            languages = [self._languages[number] for number in numbers]
            words = self._whisper.transcribe(waves, languages)
            for i, number in enumerate(numbers):
                text, language, transcript = self._prompts[number]["text"], languages[i], words[i]
                if loops(transcript):
                    self._beam = self._beam or WhisperJudge()
                    transcript = self._beam.transcribe(waves[i], language)
                found[i] |= spoken_scores(text, transcript, language)
        if self._opinions is not None:
            chosen = [i for i, wave in enumerate(waves) if usable(wave)]
            for i, value in zip(
                chosen,
                self._opinions.scores([waves[i] for i in chosen], precision=PRECISION),
                strict=True,
            ):
                found[i]["mos"] = (value, 1)
        return found

    def _score(self, take: Take) -> dict[str, Score]:
        number, wave, seconds, ended = take
        prompt = self._prompts[number]
        sample = Sample(
            str(number),
            wave,
            prompt["text"],
            self._languages[number],
            voice=self._expected.voices.get(prompt.get("speaker", "")),
            seconds=seconds,
            expected_seconds=float(self._expected.seconds[number]),
            known={"no_eos": (float(not ended), 1), "seconds": (seconds, 1)},
        )
        return self._panel.scores(sample)


# Of a process of `Judging`.
_judging: Judging


@contextmanager
def _held_signals() -> Iterator[None]:
    """Signals that end this process wait meanwhile; processes that begin in it never get them.

    A signal to a group of processes is for the one that trains: it may need scores to end well. A
    new process inherits what is held, so there is no time at which the signal ends it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(*own: Any) -> None:
    """Load the judges in a new process, which uses one thread and no accelerator."""
    global _judging
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # JAX and the library of Whisper read these when they begin to compute.
    os.environ["NPROC"] = os.environ["OMP_NUM_THREADS"] = "1"
    jax.config.update("jax_platforms", "cpu")
    compilation_cache.enable()
    _judging = Judging(*own)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _score_there(take: Take) -> dict[str, Score]:
    return _judging._score(take)


if __name__ == "__main__":
    raise SystemExit(
        command.exit_status_of_library(
            __file__, "experiments.train.post_train", "experiments.nano.post_training"
        )
    )
