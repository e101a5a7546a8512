"""Speaks the requests of a JSONL file: resumable, and one bad line never costs the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from qtts_jax.cli.batch.fingerprint import Fingerprints
from qtts_jax.cli.batch.lines import Fail, Line, make_request, parse_lines
from qtts_jax.cli.batch.results import append_result, finished, rewrite_results, save
from qtts_jax.cli.batch.share import own_share
from qtts_jax.cli.batch.voice_cache import VoiceCache
from qtts_jax.errors import QTTSError, RequestError
from qtts_jax.generation.batch import bucket
from qtts_jax.serving.whole import WholeSpeech
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.requests import Plan
from qtts_jax.tts.synthesis import Speech


def run_batch(
    tts: QwenTTS,
    requests: Path,
    out: Path,
    batch_size: int,
    report: Callable[[str], None],
    settings: Mapping[str, Any],
    *,
    given: Mapping[str, Any] | None = None,
    strict: bool = False,
    allow_url: bool = False,
) -> int:
    """Speak every request of a JSONL file.

    Writes ID.wav (float32), ID.codes.npy (int32 [T, Q]) and a line of results.jsonl for each.
    Requests whose results are there already are skipped, so an interrupted run goes on where it
    stopped; failed ones are tried again. A result belongs to a request if its fingerprint is that
    of the line, the contents of its reference files and `settings`; other results are spoken anew.
    A line for a preset voice that names none gets the checkpoint's first, as in `qtts say`; an
    empty `speaker` leaves the voice to the model.

    Args:
        requests: one JSON object per line; `tts/README.md` lists the fields.
        out: created if needed.
        batch_size: requests generated together.
        report: called with one sentence for every line that failed, and for notes.
        settings: what determines the audio beside the lines (checkpoint, dtype, options), as JSON
            values.
        given: fields of lines that do not have them; those that are None are left out.
        strict: results that do not belong to their line are kept, and the lines fail.
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
    faults: list[tuple[int, str | None, Exception]] = []
    lines = list(parse_lines(text, tts.modes, lambda *fault: faults.append(fault)))
    lines, faults = own_share(lines, faults)
    defaults = {name: value for name, value in (given or {}).items() if value is not None}
    lines = [replace(line, data=defaults | line.data) for line in lines]
    _name_speakers(tts, lines, report)
    voices = VoiceCache(tts, requests.parent, allow_url)
    fingerprint = Fingerprints(voices, settings)
    prints = {line.id: fingerprint(line) for line in lines}
    done = finished(out)
    others = {
        id_: done[id_].get("fingerprint")
        for id_, wanted in prints.items()
        if id_ in done and done[id_].get("fingerprint") != wanted
    }
    if strict:
        for line in lines:
            if line.id in others:
                faults.append((line.number, line.id, _mismatch(out, others[line.id])))
    else:
        done = {id_: result for id_, result in done.items() if id_ not in others}
        _note_others(out, list(others.values()), report)
    rewrite_results(out, done)
    failed = 0

    def fail(number: int, id_: str | None, error: Exception) -> None:
        nonlocal failed
        failed += 1
        # Errors other than ours are unexpected; their class helps more than their message.
        message = str(error) if isinstance(error, QTTSError) else f"{type(error).__name__}: {error}"
        report(f"{requests.name}, line {number}{f' ({id_})' if id_ else ''}: {message}")
        append_result(out, {"id": id_, "line": number, "status": "error", "error": message})

    for fault in faults:
        fail(*fault)
    todo = [line for line in lines if line.id not in done]
    with tqdm(total=len(todo), unit="request", desc="speaking") as bar:
        # A power of two: further files find its programs compiled.
        rows, seconds = bucket(max(min(batch_size, len(todo)), 1), 1), 0.0

        def fail_and_go_on(number: int, id_: str | None, error: Exception) -> None:
            fail(number, id_, error)
            bar.update()

        for line, speech in _speak(tts, todo, rows, voices, fail_and_go_on):
            try:
                save(out, line, prints[line.id], speech, tts.sample_rate)
            except Exception as error:  # see `_speak`
                fail_and_go_on(line.number, line.id, error)
                continue
            seconds += len(speech.wave) / tts.sample_rate
            bar.set_postfix_str(f"{seconds:.1f} s of speech")
            bar.update()
    return failed


def _name_speakers(tts: QwenTTS, lines: list[Line], report: Callable[[str], None]) -> None:
    """Give lines for a preset voice that name none the checkpoint's first."""
    speaker = tts.default_speaker
    unnamed = [x for x in lines if x.data["mode"] == "custom_voice" and "speaker" not in x.data]
    if speaker is None or not unnamed:
        return
    for line in unnamed:
        line.data["speaker"] = speaker
    report(
        f"note: speaking {_lines(len(unnamed))} without a speaker as {speaker}; the field speaker "
        f"chooses among {', '.join(tts.supported_speakers)}"
    )


def _note_others(out: Path, prints: list[str | None], report: Callable[[str], None]) -> None:
    """Report how many results are spoken anew, and why.

    Args:
        prints: their fingerprints; None for results of versions that stored none.
    """
    without = sum(each is None for each in prints)
    if changed := len(prints) - without:
        report(
            f"note: {_lines(changed)} will be spoken anew: the results in {out} were made from "
            "other words, settings, reference files or another checkpoint"
        )
    if without:
        report(
            f"note: {_lines(without)} will be spoken anew: the results in {out} have no "
            "fingerprint, which earlier versions did not store"
        )


def _mismatch(out: Path, found: str | None) -> RequestError:
    """The error of a line whose result does not belong to it."""
    why = (
        "has no fingerprint, which earlier versions did not store"
        if found is None
        else "was made from other words, settings, reference files or another checkpoint"
    )
    return RequestError(
        f"its result in {out} {why}; leave out --strict to speak the line anew, or name another "
        "directory."
    )


def _lines(count: int) -> str:
    return f"{count} line{'s' * (count > 1)}"


def _speak(
    tts: QwenTTS, todo: list[Line], rows: int, voices: VoiceCache, fail: Fail
) -> Iterator[tuple[Line, Speech]]:
    """The speech of each line that can be spoken; `fail` gets the others.

    Every exception is caught, not only user errors: none may cost the other lines, and each is
    reported with its line.
    """

    def plans() -> Iterator[tuple[Line, Plan]]:
        for line in todo:
            try:
                plan = tts.plan(make_request(line, voices))
            except Exception as error:
                fail(line.number, line.id, error)
            else:
                yield line, plan

    for line, speech in WholeSpeech[Line](tts, rows).speak(plans()):
        if isinstance(speech, Exception):
            fail(line.number, line.id, speech)
        else:
            yield line, speech
