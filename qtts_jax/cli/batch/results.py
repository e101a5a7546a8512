"""Output files of a batch: waveforms, codes and `results.jsonl`, from which a run resumes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qtts_jax.cli.batch.lines import RESULTS, Line
from qtts_jax.errors import QTTSError
from qtts_jax.io.atomic_files import npy_bytes, write_whole
from qtts_jax.io.audio_writer import save_audio
from qtts_jax.tts.synthesis import Speech


def save(out: Path, line: Line, fingerprint: str, speech: Speech, rate: int) -> None:
    """Write the files of one request and its result.

    Args:
        fingerprint: of the line, the checkpoint and the options.
        rate: sample rate, Hz.
    """
    id_ = line.id
    save_audio(out / f"{id_}.wav", speech.wave, rate)
    write_whole(out / f"{id_}.codes.npy", npy_bytes(speech.codes))
    append_result(
        out,
        {
            "id": id_,
            "line": line.number,
            "status": "ok",
            "fingerprint": fingerprint,
            "frames": len(speech.codes),
            "seconds": len(speech.wave) / rate,
            "ended": speech.ended,
            "stopped_by": speech.stopped_by,
            "seed": speech.seed,
            "wav": f"{id_}.wav",
            "codes": f"{id_}.codes.npy",
        },
    )


def append_result(out: Path, result: dict[str, Any]) -> None:
    """Add a line to `results.jsonl` and flush it to the disk."""
    path = out / RESULTS
    try:
        # JSON can hold half of a UTF-16 pair, which UTF-8 cannot: it is written as an escape.
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(result, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise QTTSError(f"cannot write {path}: {error}.") from error


def finished(out: Path) -> dict[str, dict[str, Any]]:
    """Successful results of earlier runs whose files still exist, by id."""
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
        if not isinstance(result, dict) or result.get("status") != "ok":
            continue
        if all((out / result[kind]).exists() for kind in ("wav", "codes")):
            done[result["id"]] = result
    return done


def rewrite_results(out: Path, done: dict[str, dict[str, Any]]) -> None:
    """Replace `results.jsonl` by the given results."""
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in done.values())
    write_whole(out / RESULTS, text.encode())
