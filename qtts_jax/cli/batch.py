"""Many requests from a JSONL file: resumable, and one bad line never costs the others."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.errors import QTTSError, RequestError
from qtts_jax.io.atomic_files import npy_bytes, write_whole
from qtts_jax.io.audio_writer import save_audio
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.speech_tokenizer.voice_files import read_array
from qtts_jax.tts.clone_prompt import VoiceClonePromptItem
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.requests import SpeechRequest
from qtts_jax.tts.synthesis import Speech

RESULTS = "results.jsonl"
# File systems take names of 255 bytes, of which endings and half-written files need some.
LONGEST_ID = 200
_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
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
    "seed": int,
    "greedy": bool,
}
# Fields that only one mode reads; elsewhere they would be ignored without a word.
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


def run_batch(
    tts: QwenTTS,
    requests: Path,
    out: Path,
    batch_size: int,
    report: Callable[[str], None],
    allow_url: bool = False,
) -> int:
    """Speak every request of a JSONL file.

    Writes ID.wav (float32), ID.codes.npy (int32 [T, Q]) and a line of results.jsonl for each.
    Requests whose results are there already are skipped, so an interrupted run goes on where it
    stopped; failed ones are tried again.

    Args:
        requests: one JSON object a line; see the README for the fields.
        out: created if needed.
        batch_size: requests generated together.
        report: called with one sentence for every line that failed.
        allow_url: fetch a `ref_audio` that is a URL.

    Returns:
        How many lines failed.

    Raises:
        RequestError: the file cannot be read, or `out` cannot be a directory.
        QTTSError: results cannot be written.
    """
    try:
        text = requests.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"cannot read the requests of {requests}: {error}.") from error
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"cannot make the directory {out} ({error}); name another.") from error
    done = _finished(out)
    _rewrite_results(out, done)
    failed = 0

    def fail(number: int, id_: str | None, error: Exception) -> None:
        nonlocal failed
        failed += 1
        # Of a fault that is not the user's, the kind says more than the message.
        said = str(error) if isinstance(error, QTTSError) else f"{type(error).__name__}: {error}"
        report(f"{requests.name}, line {number}{f' ({id_})' if id_ else ''}: {said}")
        _append_result(out, {"id": id_, "line": number, "status": "error", "error": said})

    lines = list(_parse(text, tts.modes, fail))
    todo = [line for line in lines if line.id not in done]
    voices = Voices(tts, requests.parent, allow_url)
    with tqdm(total=len(todo), unit="request", desc="speaking") as bar:
        for start in range(0, len(todo), batch_size):
            group = todo[start : start + batch_size]
            seconds = 0.0
            for line, request, speech in _speak(tts, group, voices, fail):
                try:
                    _save(out, line, request, speech, tts.sample_rate)
                except Exception as error:  # see `_speak`
                    fail(line.number, line.id, error)
                    continue
                seconds += len(speech.wave) / tts.sample_rate
            bar.set_postfix_str(f"{seconds:.1f} s of speech in the last batch")
            bar.update(len(group))
    return failed


Fail = Callable[[int, str | None, Exception], None]


def _parse(text: str, modes: Sequence[str], fail: Fail) -> Iterator[Line]:
    seen: set[str] = set()
    # Not `splitlines`: it also parts at characters that JSON allows inside a string (U+2028).
    for number, raw in enumerate(text.split("\n"), 1):
        if not raw.strip():
            continue
        id_ = None
        try:
            try:
                data = json.loads(raw)
            except (ValueError, RecursionError) as error:  # numbers and nesting have limits, too
                raise RequestError(f"this is not JSON ({error}); correct the line.") from error
            if isinstance(data, dict) and isinstance(data.get("id"), str):
                id_ = data["id"]
            data = _check(data, modes)
            if data["id"] in seen:
                raise RequestError(f"the id {data['id']!r} is used twice; make ids unique.")
        except QTTSError as error:
            fail(number, id_, error)
            continue
        seen.add(data["id"])
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
            f"the id {data['id']!r} cannot name files; use letters, digits, '.', '_' and '-'."
        )
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
    # Empty strings and False say "nothing", which every mode can do.
    surplus = sorted(name for name in others & set(data) if data[name])
    if surplus:
        raise RequestError(f"mode {mode!r} does not use {', '.join(surplus)}; remove it.")
    return data


def _speak(
    tts: QwenTTS, group: list[Line], voices: Voices, fail: Fail
) -> Iterator[tuple[Line, SpeechRequest, Speech]]:
    """Generate a group together; when it fails as a whole, one by one.

    Every exception is caught, not only faults of users: none may cost the other lines, and each is
    reported with its line.
    """
    ready: list[tuple[Line, SpeechRequest]] = []
    for line in group:
        try:
            ready.append((line, _prepare(tts, line, voices)))
        except Exception as error:
            fail(line.number, line.id, error)
    if not ready:
        return
    try:
        speeches = tts.synthesize([request for _, request in ready])
    except Exception:
        # One request that does not fit must not cost the others of its group.
        for line, request in ready:
            try:
                speech = tts.synthesize([request])[0]
            except Exception as error:
                fail(line.number, line.id, error)
            else:
                yield line, request, speech
        return
    for (line, request), speech in zip(ready, speeches, strict=True):
        yield line, request, speech


class Voices:
    """Reference voices, each encoded alone (a request never depends on its neighbours), once.

    Besides recordings, a request to a 25 Hz checkpoint may name the files `xvector` and `ref_mel`.

    Args:
        folder: where relative paths are looked for first; then the working directory.
    """

    SIZE = 64

    def __init__(self, tts: QwenTTS, folder: Path, allow_url: bool = False) -> None:
        self._tts, self._folder, self._allow_url = tts, folder, allow_url
        self._known: dict[tuple[Any, ...], VoiceClonePromptItem] = {}

    def __call__(self, data: dict[str, Any]) -> VoiceClonePromptItem:
        """The voice of a request.

        Raises:
            QTTSError: no reference, or one that cannot be used.
        """
        if not data.get("ref_audio"):
            raise RequestError("ref_audio is missing; name the reference recording.")
        files = (data.get("xvector"), data.get("ref_mel"))
        key = (data["ref_audio"], data.get("ref_text"), data.get("x_vector_only", False), *files)
        if key not in self._known:
            audio, words, x_vector_only = key[:3]
            item = self._tts.create_voice_clone_prompt(
                self._path(audio),
                words,
                x_vector_only,
                self.decoder(data),
                allow_url=self._allow_url,
            )[0]
            if len(self._known) == self.SIZE:
                self._known.pop(next(iter(self._known)))
            self._known[key] = item
        return self._known[key]

    def decoder(self, data: dict[str, Any]) -> ReferenceVoice | None:
        """The voice that a request names for its decoder, or None.

        Raises:
            RequestError: one of two files is missing or cannot be read.
        """
        vector, mel = data.get("xvector"), data.get("ref_mel")
        if (vector is None) != (mel is None):
            raise RequestError("xvector and ref_mel describe a voice together: give both.")
        if vector is None or mel is None:
            return None
        return ReferenceVoice(
            read_array(Path(self._path(vector)), "the x-vector"),
            read_array(Path(self._path(mel)), "the reference mel"),
        )

    def _path(self, name: str) -> str:
        beside = self._folder / name
        try:
            return str(beside) if beside.exists() else name
        except OSError:  # base64 is no possible file name
            return name


def _prepare(tts: QwenTTS, line: Line, voices: Voices) -> SpeechRequest:
    d = line.data
    sampling = {name: d[name] for name in _SAMPLING if name in d}
    if d.get("greedy"):
        sampling |= {"do_sample": False, "subtalker_dosample": False}
    common = {"seed": d.get("seed"), **sampling}
    # The official defaults: whole text first, except for clones.
    whole_text = not d.get("stream_text", d["mode"] == "voice_clone")
    if d["mode"] == "custom_voice":
        return tts.prepare_custom_voice(
            d["text"],
            d.get("speaker"),
            d.get("language"),
            d.get("instruct"),
            whole_text,
            decoder_voice=voices.decoder(d),
            **common,
        )
    if d["mode"] == "voice_design":
        return tts.prepare_voice_design(
            d["text"],
            d.get("instruct"),
            d.get("language"),
            whole_text,
            decoder_voice=voices.decoder(d),
            **common,
        )
    return tts.prepare_voice_clone(d["text"], voices(d), d.get("language"), whole_text, **common)


def _save(out: Path, line: Line, request: SpeechRequest, speech: Speech, rate: int) -> None:
    save_audio(out / f"{line.id}.wav", speech.wave, rate)
    write_whole(out / f"{line.id}.codes.npy", npy_bytes(speech.codes))
    _append_result(
        out,
        {
            "id": line.id,
            "line": line.number,
            "status": "ok",
            "frames": len(speech.codes),
            "seconds": len(speech.wave) / rate,
            "ended": speech.ended,
            "seed": request.seed,
            "wav": f"{line.id}.wav",
            "codes": f"{line.id}.codes.npy",
        },
    )


def _append_result(out: Path, result: dict[str, Any]) -> None:
    path = out / RESULTS
    try:
        # Half of a UTF-16 pair, which JSON can name and UTF-8 cannot, is named again.
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(result, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise QTTSError(f"cannot write {path}: {error}.") from error


def _finished(out: Path) -> dict[str, dict[str, Any]]:
    """Good results of earlier runs whose files are still there, by id."""
    done: dict[str, dict[str, Any]] = {}
    path = out / RESULTS
    if not path.exists():
        return done
    # An interrupt may have cut the last line short, even inside a character.
    for raw in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            result = json.loads(raw)
        except json.JSONDecodeError:
            continue
        if result.get("status") == "ok" and all(
            (out / result[kind]).exists() for kind in ("wav", "codes")
        ):
            done[result["id"]] = result
    return done


def _rewrite_results(out: Path, done: dict[str, dict[str, Any]]) -> None:
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in done.values())
    write_whole(out / RESULTS, text.encode())
