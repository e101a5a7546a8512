"""Task description: pitch, rate and level of voices against the words of their description."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

from qtts_jax.data.manifest import Clip
from qtts_jax.data.measure import speaking_rate
from qtts_jax.data.voice_descriptions import PACES, PITCHES, SEXES, VoiceDescription, sentences
from qtts_jax.errors import DataError, RequestError
from qtts_jax.evaluation import pitch
from qtts_jax.evaluation.bootstrap import Score
from qtts_jax.evaluation.panel import usable
from qtts_jax.evaluation.rows import Row
from qtts_jax.evaluation.sample import SAMPLE_RATE, load_mono_16k
from qtts_jax.evaluation.tasks.clips import name_of
from qtts_jax.evaluation.tasks.speaking import Speaking, language_of
from qtts_jax.generation.request import Request
from qtts_jax.tts.qwen_tts import QwenTTS

ATTRIBUTES = ("pitch", "speed")


@dataclass(frozen=True)
class Pair:
    """Two descriptions that differ in one word.

    Attributes:
        attribute: "pitch" or "speed".
        low: description that requests less of it.
        high: description that requests more of it.
    """

    attribute: str
    low: str
    high: str


def default_pairs() -> list[Pair]:
    """Pairs in the wordings that training uses, both sexes, pitch and speed in turns."""
    pairs = []
    for wording in range(3):
        for sex in SEXES:
            by_pitch = [sentences(VoiceDescription(sex, p, "medium"))[wording] for p in PITCHES]
            by_speed = [sentences(VoiceDescription(sex, "medium", p))[wording] for p in PACES]
            pairs += [Pair("pitch", by_pitch[0], by_pitch[-1])]
            pairs += [Pair("speed", by_speed[0], by_speed[-1])]
    return pairs


def read_pairs(path: Path) -> list[Pair]:
    """Pairs of a JSONL file with `attribute`, `low` and `high`.

    Raises:
        DataError: the file cannot be read or has a faulty line.
    """
    names = [f.name for f in fields(Pair)]
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the pairs {path} cannot be read: {error}.") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            found = None
        if (
            not isinstance(found, dict)
            or sorted(found) != sorted(names)
            or not all(isinstance(v, str) and v for v in found.values())
            or found["attribute"] not in ATTRIBUTES
        ):
            raise DataError(
                f"line {number} of {path} must be a JSON object with the strings {names}, where "
                f"attribute is one of {', '.join(ATTRIBUTES)}."
            )
        pairs.append(Pair(**found))
    if not pairs:
        raise DataError(f"{path} has no pairs; write one a line.")
    return pairs


def description_rows(
    tts: QwenTTS,
    clips: Sequence[Clip],
    speaking: Speaking,
    pairs: Sequence[Pair],
    *,
    speakers: Sequence[str] = (),
) -> list[Row]:
    """A row for each attribute: the share of pairs that moved as requested, and by how much.

    Each text is spoken twice with the same seed, by the two descriptions of a pair. Pitch is the
    median of the voiced frames (cents apart); speed is letters a second of speech without pauses
    (per cent apart). A pair with nothing to measure has not moved.

    Args:
        clips: whose texts are spoken; each takes the next pair.
        speakers: preset speakers, in turns, whose instruction the description is; empty for a
            voice made by the description alone or, where a checkpoint has no such, for all presets.

    Raises:
        RequestError: a Base checkpoint, which takes no descriptions.
    """
    if tts.modes == ("voice_clone",):
        raise RequestError("a base checkpoint takes no descriptions; use a VoiceDesign checkpoint.")
    names = list(speakers) or tts.supported_speakers

    def request(i: int) -> Request:
        clip, p = clips[i // 2], pairs[i // 2 % len(pairs)]
        words, language = (p.low, p.high)[i % 2], language_of(tts, clip)
        options = speaking.options(tts, i // 2)
        if "voice_design" in tts.modes and not speakers:
            return tts.prepare_voice_design(clip.text, words, language, **options)
        name = names[i // 2 % len(names)]
        return tts.prepare_custom_voice(clip.text, name, language, words, **options)

    rows = {a: Row(a, {}) for a in dict.fromkeys(p.attribute for p in pairs)}
    spoken = speaking.speak(tts, 2 * len(clips), request)
    for i, clip in enumerate(tqdm(clips, desc="descriptions", unit="pair")):
        low, high = (
            load_mono_16k((np.clip(next(spoken).wave, -1, 1), tts.sample_rate)) for _ in range(2)
        )
        attribute = pairs[i % len(pairs)].attribute
        rows[attribute].clips[name_of(clip)] = moved(attribute, low, high, clip.text)
    return [row for row in rows.values() if row.clips]


def moved(attribute: str, low: np.ndarray, high: np.ndarray, text: str) -> dict[str, Score]:
    """Scores of a pair of waves [T] at 16 kHz."""
    if not (usable(low) and usable(high)):
        return {"moved": (0.0, 1)}
    if attribute == "pitch":
        medians = [pitch.median(pitch.track(w, SAMPLE_RATE)) for w in (low, high)]
        if medians[0] is None or medians[1] is None:
            return {"moved": (0.0, 1)}
        by = 1200 * float(np.log2(medians[1] / medians[0]))
    else:
        rates = [speaking_rate(w, SAMPLE_RATE, text) for w in (low, high)]
        by = 100 * (rates[1] / rates[0] - 1)
    return {"moved": (float(by > 0), 1), "moved_by": (by, 1)}
