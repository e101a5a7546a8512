"""Descriptions of voices in words, from measured classes: sex, pitch and pace.

Pitch is low, medium or high among the speakers of that sex, pace is slow, medium or fast among the
clips of that language: the thresholds are thirds of the training split, where every speaker
counts the same, however many clips there are.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from qtts_jax.data.dataset import Dataset, Waves
from qtts_jax.data.measure import median_pitch, speaking_rate
from qtts_jax.data.splits import TRAIN
from qtts_jax.data.threads import in_order
from qtts_jax.errors import DataError
from qtts_jax.io.atomic_files import sweep, write_whole

FILE = "voices.json"
SEXES = ("female", "male")
PITCHES = ("low", "medium", "high")
PACES = ("slow", "medium", "fast")
# Between the typical pitches of women and men, for speakers whose sex is not in the manifest.
SEX_BORDER_HZ = 160.0

_NOUNS = {"female": ("woman", "female voice", "female speaker"),
          "male": ("man", "male voice", "male speaker")}  # fmt: skip
_PITCH = {
    "low": ("a low pitch", "a deep tone", "low-pitched"),
    "medium": ("a medium pitch", "an average tone", "medium-pitched"),
    "high": ("a high pitch", "a bright, high tone", "high-pitched"),
}
_PACE = {
    "slow": ("slowly", "at a slow pace", "slow"),
    "medium": ("at a normal speed", "at a moderate pace", "normal"),
    "fast": ("fast", "at a quick pace", "fast"),
}
_WORDINGS = (
    "A {noun} with {pitch}, speaking {pace}.",
    "A {noun} with {pitch2} speaks {pace2}.",
    "A {adjective} {noun}, {pace2}.",
    "Speak {pace} as a {noun} with {pitch}.",
    "{noun}, {adjective}, {speed} speech.",
    "A {noun} with {pitch}.",
    "A {noun} who speaks {pace}.",
    "A {noun}.",
)


class VoiceDescription(NamedTuple):
    """The classes that a description names; None for what could not be measured."""

    sex: str | None
    pitch: str | None
    pace: str


class Thresholds(NamedTuple):
    """Borders of the classes: Hz by sex, letters a second by language, two of each."""

    pitch: dict[str, tuple[float, float]]
    pace: dict[str, tuple[float, float]]


class VoiceDescriptions:
    """Measurements of all clips of a dataset, and sentences about them.

    Attributes:
        thresholds: of the classes.
        pitch: Hz or None, by clip.
        pace: letters a second of speech, by clip.
        sex: by speaker; None if no clip is voiced.
    """

    def __init__(
        self,
        dataset: Dataset,
        thresholds: Thresholds,
        pitch: list[float | None],
        pace: list[float],
        sex: dict[str, str | None],
    ) -> None:
        self._records = dataset.records
        self.thresholds, self.pitch, self.pace, self.sex = thresholds, pitch, pace, sex

    def voice_class(self, index: int) -> VoiceDescription:
        """The classes of a clip."""
        record, t = self._records[index], self.thresholds
        sex, hertz = self.sex[record.speaker], self.pitch[index]
        pitch = None
        if sex is not None and hertz is not None and sex in t.pitch:
            pitch = _class(hertz, t.pitch[sex], PITCHES)
        return VoiceDescription(
            sex, pitch, _class(self.pace[index], t.pace[record.language], PACES)
        )

    def sentences(self, index: int) -> list[str]:
        """All descriptions of a clip; those that name most classes come first."""
        return sentences(self.voice_class(index))

    def sentence(self, index: int, rng: np.random.Generator) -> str:
        """One of `sentences` at random."""
        found = self.sentences(index)
        return found[int(rng.integers(len(found)))]


def sentences(voice: VoiceDescription) -> list[str]:
    """Descriptions of a class in several wordings, without what is not known."""
    out = []
    pace = _PACE[voice.pace]
    nouns = _NOUNS[voice.sex] if voice.sex is not None else ("voice", "speaker", "person")
    pitch = (None, None, None) if voice.pitch is None else _PITCH[voice.pitch]
    for wording in _WORDINGS:
        if voice.pitch is None and any(
            f"{{{n}}}" in wording for n in ("pitch", "pitch2", "adjective")
        ):
            continue
        for noun in nouns:
            text = wording.format(
                noun=noun, pitch=pitch[0], pitch2=pitch[1], adjective=pitch[2],
                pace=pace[0], pace2=pace[1], speed=pace[2],
            )  # fmt: skip
            out.append(text[0].upper() + text[1:])
    return out


def describe_voices(
    dataset: Dataset,
    waves: Waves | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> VoiceDescriptions:
    """Measure all clips, or read what an earlier call has kept in `voices.json`.

    The sex of a speaker is the field `sex` of the manifest ("female" or "male") or follows from
    the median pitch of all clips of the speaker.

    Args:
        waves: all clips in memory, if they are; else they are decoded here.
        workers: threads; None for one a core.

    Raises:
        DataError: the kept file is damaged or of another dataset, or a sex is neither.
    """
    path = dataset.directory / FILE
    if path.is_file():
        return _read(dataset, path)
    waves = waves if waves is not None and len(waves) == len(dataset) else None

    def measure(index: int) -> tuple[float | None, float]:
        wave = dataset.wave(index) if waves is None else waves[waves.positions[index]]
        rate = dataset.sample_rate
        return (
            median_pitch(wave, rate),
            speaking_rate(wave, rate, dataset.records[index].text),
        )

    measured = in_order(measure, range(len(dataset)), workers)
    bar = tqdm(measured, total=len(dataset), desc="voices", unit="clip", disable=not progress)
    pitch, pace = (list(values) for values in zip(*bar, strict=True))
    sex = _sexes(dataset, pitch)
    thresholds = _thresholds(dataset, pitch, pace, sex)
    about: dict[str, Any] = {
        "dataset": dataset.digest,
        "thresholds": thresholds._asdict(),
        "sex": sex,
        "pitch": [None if p is None else round(p, 1) for p in pitch],
        "pace": [round(p, 2) for p in pace],
    }
    sweep(dataset.directory)
    write_whole(path, json.dumps(about, ensure_ascii=False).encode())
    return _read(dataset, path)


def _read(dataset: Dataset, path: Path) -> VoiceDescriptions:
    try:
        about = json.loads(path.read_text(encoding="utf-8-sig"))
        if about["dataset"] != dataset.digest or len(about["pitch"]) != len(dataset):
            raise DataError(f"{path} describes another dataset; remove it.")
        thresholds = Thresholds(**{
            name: {key: (low, high) for key, (low, high) in borders.items()}
            for name, borders in about["thresholds"].items()
        })  # fmt: skip
        return VoiceDescriptions(dataset, thresholds, about["pitch"], about["pace"], about["sex"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged ({error}); remove it.") from error


def _sexes(dataset: Dataset, pitch: list[float | None]) -> dict[str, str | None]:
    given: dict[str, str] = {}
    hertz: dict[str, list[float]] = defaultdict(list)
    for record in dataset.records:
        sex, value = record.extra.get("sex"), pitch[record.index]
        if sex is not None and (sex not in SEXES or given.setdefault(record.speaker, sex) != sex):
            raise DataError(
                f"line {record.line} of the manifest of {dataset.directory} has the sex {sex!r} "
                f"for {record.speaker}; it must be one of {SEXES}, the same in all clips of a "
                "speaker."
            )
        hertz[record.speaker] += [] if value is None else [value]
    return {speaker: given.get(speaker) or _guess(values) for speaker, values in hertz.items()}


def _guess(hertz: list[float]) -> str | None:
    if not hertz:
        return None
    return "female" if np.median(hertz) > SEX_BORDER_HZ else "male"


def _thresholds(
    dataset: Dataset,
    pitch: list[float | None],
    pace: list[float],
    sex: dict[str, str | None],
) -> Thresholds:
    measured = [(r, pitch[r.index], pace[r.index]) for r in dataset.records]
    by_sex: dict[str, list[tuple[str, float]]] = defaultdict(list)
    by_language: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for record, hertz, letters in measured:
        who = sex[record.speaker]
        if record.split == TRAIN:
            by_language[record.language].append((record.speaker, letters))
            if hertz is not None and who is not None:
                by_sex[who].append((record.speaker, hertz))
    # A language without training clips has thresholds from its held-out clips.
    trained = set(by_language)
    for record, _, letters in measured:
        if record.language not in trained:
            by_language[record.language].append((record.speaker, letters))
    return Thresholds(*(
        {key: thirds(values) for key, values in groups.items()} for groups in (by_sex, by_language)
    ))  # fmt: skip


def thirds(values: Sequence[tuple[str, float]]) -> tuple[float, float]:
    """Borders that divide (speaker, value) pairs in three, where every speaker counts the same."""
    clips = Counter(speaker for speaker, _ in values)
    ordered = sorted((value, 1 / clips[speaker]) for speaker, value in values)
    numbers, weights = np.asarray(ordered).T
    middle = (np.cumsum(weights) - weights / 2) / len(clips)
    low, high = np.interp((1 / 3, 2 / 3), middle, numbers).round(2).tolist()
    return low, high


def _class(value: float, borders: Iterable[float], names: tuple[str, ...]) -> str:
    return names[int(np.searchsorted(list(borders), value, side="right"))]
