"""Library of `post_train` and `post_training`: speech of prompts, its scores and its rewards.

Expected durations and voices are those of the model before post-training: the mean of a few draws
of each prompt, and the longest speech of each speaker. So `likeness` and `length` keep what was
there, and recordings are not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from experiments import command
from qtts_jax.errors import DataError
from qtts_jax.evaluation.bootstrap import Score
from qtts_jax.evaluation.judges.package import installed_version
from qtts_jax.evaluation.judges.whisper import WhisperJudge
from qtts_jax.evaluation.panel import KINDS, Judge, Panel, transcript_scores
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

    def spoken(text: str, language: str) -> str:
        return normalize(text) if language == FRONT_END_LANGUAGE else text

    def score(sample: Sample) -> dict[str, Score]:
        words = whisper.transcribe(sample.wave, sample.language) if len(sample.wave) else ""
        text, language = spoken(sample.text, sample.language), sample.language
        return transcript_scores(text, spoken(words, language), language)

    return score


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
            load_mono_16k((np.clip(s.wave, -1, 1), tts.sample_rate))
            for first in range(0, len(requested), rows)
            for s in tts.synthesize(requested[first : first + rows])
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


class Judging:
    """Scores speech of prompts by their numbers.

    Args:
        panel: of `load_panel`.
        sample_rate: of the speech.
    """

    def __init__(
        self,
        panel: Panel,
        prompts: Sequence[Mapping[str, str]],
        expected: Expected,
        sample_rate: int,
    ) -> None:
        self._panel, self._prompts = panel, prompts
        self._expected, self._rate = expected, sample_rate
        self._languages = [language_of(prompt) for prompt in prompts]

    def scores(self, numbers: Sequence[int], spoken: Sequence[Speech]) -> list[dict[str, Score]]:
        """Scores of each speech, `no_eos` and `seconds` among them."""
        return [self._score(n, speech) for n, speech in zip(numbers, spoken, strict=True)]

    def rewards(
        self, mix: RewardMix, numbers: Sequence[int], spoken: Sequence[Speech]
    ) -> dict[str, np.ndarray]:
        """Rewards of each speech by name, the weighted sum `reward` among them: [N] each."""
        found = [mix.rewards(scores) for scores in self.scores(numbers, spoken)]
        return {name: np.asarray([f[name] for f in found]) for name in found[0]}

    def _score(self, number: int, speech: Speech) -> dict[str, Score]:
        prompt = self._prompts[number]
        seconds = len(speech.wave) / self._rate
        sample = Sample(
            str(number),
            load_mono_16k((np.clip(speech.wave, -1, 1), self._rate)),
            prompt["text"],
            self._languages[number],
            voice=self._expected.voices.get(prompt.get("speaker", "")),
            seconds=seconds,
            expected_seconds=float(self._expected.seconds[number]),
            known={"no_eos": (float(not speech.ended), 1), "seconds": (seconds, 1)},
        )
        return self._panel.scores(sample)


if __name__ == "__main__":
    raise SystemExit(
        command.exit_status_of_library(
            __file__, "experiments.train.post_train", "experiments.nano.post_training"
        )
    )
