"""Lines of a requests file: parsed, checked and made into request objects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from qtts_jax.cli.batch.voice_cache import VoiceCache
from qtts_jax.cli.sampling_options import check_temperatures
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.errors import QTTSError, RequestError
from qtts_jax.tts.voices import CustomVoice, VoiceClone, VoiceDesign, VoiceRequest

# File systems take names of 255 bytes; endings and temporary names need some of them.
LONGEST_ID = 200
RESULTS = "results.jsonl"
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
# Device names of Windows, which name no file there, whatever follows a dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_SAMPLING = tuple(f.name for f in fields(SamplingParams))
_FIELDS: dict[str, type] = {
    "id": str,
    "mode": str,
    "text": str,
    "language": str,
    "speaker": str,
    "instruct": str,
    "ref_audio": str,
    "ref_text": str,
    "x_vector_only": bool,
    "xvector": str,
    "ref_mel": str,
    "stream_text": bool,
    "normalize": bool,
    "split": bool,
    "seed": int,
    "greedy": bool,
}
# Fields that only some modes read; in other modes they would be ignored silently.
_MODE_FIELDS = {
    "custom_voice": {"speaker", "instruct"},
    "voice_design": {"instruct"},
    "voice_clone": {"ref_audio", "ref_text", "x_vector_only"},
}


@dataclass(frozen=True)
class Line:
    """One request of the file: its line number (from 1) and its checked fields."""

    number: int
    data: dict[str, Any]

    @property
    def id(self) -> str:
        """The name of its output files."""
        return self.data["id"]


# (line number, id if it is known, error)
Fail = Callable[[int, str | None, Exception], None]


def parse_lines(text: str, modes: Sequence[str], fail: Fail) -> Iterator[Line]:
    """The valid lines of a requests file; `fail` gets the others.

    Args:
        modes: what the checkpoint does; the first is the default.
    """
    seen: dict[str, str] = {}  # ids by their lower-case form
    # Not `splitlines`: it also splits at characters that JSON allows inside strings (U+2028).
    for number, raw in enumerate(text.split("\n"), 1):
        if not raw.strip():
            continue
        id_ = None
        try:
            try:
                data = json.loads(raw)
            except (ValueError, RecursionError) as error:  # numbers and nesting have limits
                raise RequestError(f"this is not JSON ({error}); correct the line.") from error
            if isinstance(data, dict) and isinstance(data.get("id"), str):
                id_ = data["id"]
            data = _check(data, modes)
            other = seen.get(data["id"].lower())
            if other == data["id"]:
                raise RequestError(f"the id {other!r} is used twice; make ids unique.")
            if other is not None:
                raise RequestError(
                    f"the id {data['id']!r} differs from {other!r} in case alone, and file systems "
                    "that ignore case would keep one of their results; make ids unique."
                )
        except QTTSError as error:
            fail(number, id_, error)
            continue
        seen[data["id"].lower()] = data["id"]
        yield Line(number, data)


def _check(data: Any, modes: Sequence[str]) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise RequestError("a request must be a JSON object; correct the line.")
    data = {k: v for k, v in data.items() if v is not None}
    unknown = sorted(set(data) - set(_FIELDS) - set(_SAMPLING))
    if unknown:
        raise RequestError(
            f"unknown field {', '.join(map(repr, unknown))}; known are "
            f"{', '.join([*_FIELDS, *_SAMPLING])}."
        )
    for name, kind in _FIELDS.items():
        wrong_bool = isinstance(data.get(name), bool) and kind is not bool
        if name in data and (wrong_bool or not isinstance(data[name], kind)):
            raise RequestError(f"{name} must be a JSON {kind.__name__}, not {data[name]!r}.")
    for name in ("id", "text"):
        if name not in data:
            raise RequestError(f"the field {name!r} is missing; add it.")
    if not _ID.fullmatch(data["id"]):
        raise RequestError(
            f"the id {data['id']!r} cannot name files; use letters, digits, '.', '_' and '-', and "
            "begin with a letter, a digit or '_'."
        )
    if _DEVICES.fullmatch(data["id"]) or data["id"].lower() == RESULTS:
        raise RequestError(f"the id {data['id']!r} is a reserved file name; choose another.")
    if len(data["id"]) > LONGEST_ID:
        raise RequestError(
            f"the id has {len(data['id'])} characters, too many for names of files; use at most "
            f"{LONGEST_ID}."
        )
    mode = data.setdefault("mode", modes[0])
    if mode not in _MODE_FIELDS:
        raise RequestError(f"unknown mode {mode!r}; choose one of {', '.join(_MODE_FIELDS)}.")
    if mode not in modes:
        able = ", ".join(map(repr, modes))
        raise RequestError(
            f"mode {mode!r} does not fit this checkpoint, which does {able}; "
            "use a checkpoint of the other type."
        )
    others = set().union(*_MODE_FIELDS.values()) - _MODE_FIELDS[mode]
    # Empty strings and False mean "none", which is allowed in every mode.
    surplus = sorted(name for name in others & set(data) if data[name])
    if surplus:
        raise RequestError(f"mode {mode!r} does not use {', '.join(surplus)}; remove it.")
    return data


def make_request(line: Line, voices: VoiceCache) -> VoiceRequest:
    """The request of a line.

    Raises:
        QTTSError: a reference is missing or cannot be used.
    """
    d = line.data
    sampling = {name: d[name] for name in _SAMPLING if name in d}
    if d.get("greedy"):
        sampling |= {"do_sample": False, "subtalker_dosample": False}
    check_temperatures(sampling, voices.tts.defaults, "{field}", '"greedy": true')
    options: dict[str, Any] = {
        "language": d.get("language"),
        "seed": d.get("seed"),
        "sampling": sampling,
        "normalize": d.get("normalize"),
        "split": d.get("split"),
    }
    if d["mode"] == "voice_clone":
        stream_text = d.get("stream_text", True)
        return VoiceClone(d["text"], voices(d), stream_text=stream_text, **options)
    options |= {
        "instruct": d.get("instruct"),
        "stream_text": d.get("stream_text", False),
        "decoder_voice": voices.decoder_voice(d),
    }
    if d["mode"] == "custom_voice":
        return CustomVoice(d["text"], d.get("speaker"), **options)
    return VoiceDesign(d["text"], **options)
