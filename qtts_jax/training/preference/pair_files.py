"""Preference pairs in a JSONL file: human choices, or the best and worst of groups.

    {"prompt": {"text": "Hello.", "speaker": "ryan"}, "chosen": "a.wav", "rejected": "b.wav"}
    {"prompt": {"text": "Hello."}, "chosen": "a.npy", "rejected": {"file": "b.npy", "ends": false}}

A file is audio, or the codes int [F, Q] of generated speech (`numpy.save`), which are exact; its
path is relative to the JSONL file. `ends` is false for speech that was cut.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qtts_jax.errors import AudioError, DataError, RequestError, TextError
from qtts_jax.generation.request import Request
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.training.preference.pairs import Pair, Take
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.voices import CustomVoice, VoiceDesign, VoiceRequest

PAIRS = "pairs.jsonl"
_PROMPT = ("text", "speaker", "language", "instruct")
_FORM = (
    'an object with "prompt" (an object with "text" and perhaps "speaker", "language" and '
    '"instruct"), "chosen" and "rejected" (paths)'
)


def read_pairs(path: Path, tts: QwenTTS) -> list[Pair]:
    """The pairs of a file, for the model that is to learn from them.

    Args:
        tts: lays out the prompts and encodes audio.

    Raises:
        DataError: the file or one that it names cannot be read, a line has another form, or the
            model does not take its prompt; names the line.
    """
    found = []
    for number, row in _rows(path):
        where = f"line {number} of {path}"
        if not isinstance(row, dict) or sorted(row) != ["chosen", "prompt", "rejected"]:
            raise DataError(f"{where} must be {_FORM}.")
        try:
            prompt = tts.prepare(prompt_request(row["prompt"])).prompt
        except (DataError, RequestError, TextError) as error:
            raise DataError(f"the prompt in {where} cannot be spoken: {error}") from error
        chosen, rejected = (
            _take(row[name], name, path.parent, tts, where) for name in ("chosen", "rejected")
        )
        if chosen.ends == rejected.ends and np.array_equal(chosen.codes, rejected.codes):
            raise DataError(f"chosen and rejected in {where} are the same speech; name another.")
        found.append(Pair(prompt, chosen, rejected))
    if not found:
        raise DataError(f"{path} has no pairs; write one a line.")
    return found


def write_pairs(directory: Path, pairs: Sequence[tuple[dict[str, Any], Take, Take]]) -> Path:
    """Write prompts with their chosen and rejected codes, all or nothing.

    Args:
        directory: a folder for them alone; its content is replaced.
        pairs: the prompt as in the file, chosen, rejected.

    Returns:
        the JSONL file.
    """
    with new_directory(directory, overwrite=True, markers=(PAIRS,)) as partial:
        lines = []
        for number, (prompt, *takes) in enumerate(pairs):
            row: dict[str, Any] = {"prompt": prompt}
            for name, take in zip(("chosen", "rejected"), takes, strict=True):
                file = f"{number:06d}.{name}.npy"
                np.save(partial / file, take.codes.astype(np.int32))
                row[name] = file if take.ends else {"file": file, "ends": False}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        (partial / PAIRS).write_text("".join(lines), encoding="utf-8")
    return directory / PAIRS


def prompt_request(prompt: Any) -> VoiceRequest:
    """The request of a prompt in a JSONL file, `text` with `speaker`, `language`, `instruct`.

    Without a speaker, the instruction describes the voice.

    Raises:
        DataError: it has another form.
    """
    if (
        not isinstance(prompt, dict)
        or "text" not in prompt
        or set(prompt) - set(_PROMPT)
        or not all(isinstance(value, str) for value in prompt.values())
    ):
        raise DataError(
            f"a prompt is an object with the string text, and perhaps {', '.join(_PROMPT[1:])}, "
            f"not {json.dumps(prompt, ensure_ascii=False)}."
        )
    if "speaker" not in prompt and "instruct" in prompt:
        return VoiceDesign(**prompt)
    return CustomVoice(**prompt)


def read_prompts(path: Path, tts: QwenTTS) -> tuple[list[dict[str, str]], list[Request]]:
    """The prompts of a JSONL file, one object a line as `prompt` above, and their requests.

    Raises:
        DataError: the file cannot be read, or the model does not take one; names the line.
    """
    prompts, requests = [], []
    for number, row in _rows(path):
        try:
            requests.append(tts.prepare(prompt_request(row)))
        except (DataError, RequestError, TextError) as error:
            raise DataError(f"line {number} of {path} cannot be spoken: {error}") from error
        prompts.append(row)
    if not prompts:
        raise DataError(f"{path} has no prompts; write one a line.")
    return prompts, requests


def _rows(path: Path) -> list[tuple[int, Any]]:
    """Numbers and values of the lines that are not blank."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except json.JSONDecodeError as error:
                raise DataError(f"line {number} of {path} is no JSON: {error}.") from error
    return rows


def _take(given: Any, name: str, folder: Path, tts: QwenTTS, where: str) -> Take:
    """The speech that a line names."""
    ends = True
    if isinstance(given, dict) and set(given) == {"file", "ends"}:
        given, ends = given["file"], given["ends"]
    if not isinstance(given, str) or not isinstance(ends, bool):
        raise DataError(
            f'{name} in {where} must be a path, or an object with "file" and "ends", not '
            f"{json.dumps(given)}."
        )
    file = folder / given
    try:
        if file.suffix == ".npy":
            codes = np.load(file)
        else:
            codes = tts.speech_tokenizer.encode(str(file))[0]
    except (OSError, ValueError, AudioError) as error:
        raise DataError(f"{name} in {where} cannot be read: {error}") from error
    width = tts.config.talker.codebooks
    rows = codes if codes.ndim == 2 else codes[..., None]  # [F, Q]
    if rows.ndim != 2 or rows.shape[1] != width or not np.issubdtype(codes.dtype, np.integer):
        raise DataError(
            f"{name} in {where} must hold whole numbers [frames, {width}], not {codes.dtype} "
            f"{list(codes.shape)}; use codes of this model's tokenizer."
        )
    return Take(rows, ends)
