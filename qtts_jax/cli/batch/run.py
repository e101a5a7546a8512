"""Speaks the requests of a JSONL file: resumable, and one bad line never costs the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from qtts_jax.cli.batch.lines import Fail, Line, make_request, parse_lines
from qtts_jax.cli.batch.results import append_result, finished, rewrite_results, save
from qtts_jax.cli.batch.voice_cache import VoiceCache
from qtts_jax.errors import QTTSError, RequestError
from qtts_jax.generation.request import Request
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.synthesis import Speech


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
        requests: one JSON object per line; `tts/README.md` lists the fields.
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
    done = finished(out)
    rewrite_results(out, done)
    failed = 0

    def fail(number: int, id_: str | None, error: Exception) -> None:
        nonlocal failed
        failed += 1
        # Errors other than ours are unexpected; their class helps more than their message.
        message = str(error) if isinstance(error, QTTSError) else f"{type(error).__name__}: {error}"
        report(f"{requests.name}, line {number}{f' ({id_})' if id_ else ''}: {message}")
        append_result(out, {"id": id_, "line": number, "status": "error", "error": message})

    lines = list(parse_lines(text, tts.modes, fail))
    todo = [line for line in lines if line.id not in done]
    voices = VoiceCache(tts, requests.parent, allow_url)
    with tqdm(total=len(todo), unit="request", desc="speaking") as bar:
        for start in range(0, len(todo), batch_size):
            group = todo[start : start + batch_size]
            seconds = 0.0
            for line, request, speech in _speak(tts, group, voices, fail):
                try:
                    save(out, line.id, line.number, request, speech, tts.sample_rate)
                except Exception as error:  # see `_speak`
                    fail(line.number, line.id, error)
                    continue
                seconds += len(speech.wave) / tts.sample_rate
            bar.set_postfix_str(f"{seconds:.1f} s of speech in the last batch")
            bar.update(len(group))
    return failed


def _speak(
    tts: QwenTTS, group: list[Line], voices: VoiceCache, fail: Fail
) -> Iterator[tuple[Line, Request, Speech]]:
    """Generate a group in one batch; if the batch fails, one by one.

    Every exception is caught, not only user errors: none may cost the other lines, and each is
    reported with its line.
    """
    ready: list[tuple[Line, Request]] = []
    for line in group:
        try:
            ready.append((line, tts.prepare(make_request(line, voices))))
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
