"""`qtts say`, `qtts design` and `qtts clone`: one text to an audio file."""

from __future__ import annotations

import argparse
import contextlib
import math
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from qtts_jax import processes
from qtts_jax.cli.common import (
    add_allow_url,
    add_decoder_voice,
    add_model,
    add_text_treatment,
    decoder_voice,
    load_tts,
    note,
)
from qtts_jax.cli.sampling_options import add_sampling, check_temperatures
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.errors import RequestError


def add_commands(commands: Any) -> None:
    """Add the parsers of these commands."""
    say = commands.add_parser("say", help="speak a text with a preset speaker")
    _add_text(say)
    say.add_argument(
        "--speaker",
        help="a preset speaker (default: the checkpoint's first; '' leaves the voice to the model)",
    )
    say.add_argument("--instruct", help="how to speak, in words")
    add_model(say)
    add_decoder_voice(say)
    _add_generation(say)
    say.set_defaults(run=_say, apart=False)

    design = commands.add_parser("design", help="speak with a voice described in words")
    _add_text(design)
    design.add_argument("--instruct", required=True, help="the voice, in words")
    add_model(design)
    add_decoder_voice(design)
    _add_generation(design)
    design.set_defaults(run=_design, apart=False)

    clone = commands.add_parser("clone", help="speak with the voice of a recording")
    _add_text(clone)
    clone.add_argument("--ref-audio", required=True, help="the recording")
    add_allow_url(clone)
    clone.add_argument("--ref-text", help="its transcript")
    clone.add_argument("--x-vector-only", action="store_true", help="copy only the timbre")
    add_model(clone)
    add_decoder_voice(clone, ref_audio=False)
    _add_generation(clone)
    clone.set_defaults(run=_clone, apart=False)


def _add_text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", help="the text, or - to read it from stdin as it arrives")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=".wav or .npy to write; - for PCM16 on stdout",
    )
    parser.add_argument("--language", help="a language of the checkpoint (default: auto)")


def _add_generation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, help="0 ... 2^32 - 1 (default: drawn)")
    parser.add_argument(
        "--stream", action="store_true", help="write the audio while it is made, in chunks"
    )
    parser.add_argument(
        "--stream-text",
        action=argparse.BooleanOptionalAction,
        help="feed the text along with the frames (default: only to clones and from stdin)",
    )
    add_text_treatment(parser)
    add_sampling(parser)
    processes.add_options(parser)


def _say(args: argparse.Namespace) -> int:
    from qtts_jax.tts.voices import CustomVoice

    tts = load_tts(args)
    speaker = args.speaker
    if speaker is None and tts.default_speaker is not None:
        speaker = tts.default_speaker
        note(f"note: speaking as {speaker}; --speaker chooses among {tts.supported_speakers}")
    elif speaker == "" and tts.default_speaker is not None:
        note(
            "note: --speaker is empty, so the model picks a voice, another with every seed; "
            "leave it out for the first preset speaker"
        )
    voice = decoder_voice(args, tts.speech_tokenizer, args.ref_audio)
    make = partial(CustomVoice, speaker=speaker, instruct=args.instruct, decoder_voice=voice)
    return _speak(args, tts, make, stream_text=False)


def _design(args: argparse.Namespace) -> int:
    from qtts_jax.tts.voices import VoiceDesign

    tts = load_tts(args)
    voice = decoder_voice(args, tts.speech_tokenizer, args.ref_audio)
    make = partial(VoiceDesign, instruct=args.instruct, decoder_voice=voice)
    return _speak(args, tts, make, stream_text=False)


def _clone(args: argparse.Namespace) -> int:
    from qtts_jax.io.audio import fetch_url
    from qtts_jax.tts.voices import VoiceClone

    tts = load_tts(args)
    voice = decoder_voice(args, tts.speech_tokenizer)
    audio = fetch_url(args.ref_audio, args.allow_url, "ref_audio")
    reference = audio, args.ref_text, args.x_vector_only, voice

    def make(**options: Any) -> VoiceClone:
        return VoiceClone(voice=tts.create_voice_clone_prompt(*reference)[0], **options)

    return _speak(args, tts, make, stream_text=True)


def _speak(args: argparse.Namespace, tts: Any, make: Any, stream_text: bool) -> int:
    """Generate one utterance, whole or streamed, and write it.

    Args:
        make: makes the request of the options that all commands have.
        stream_text: default of --stream-text.
    """
    from qtts_jax.io.audio_writer import AudioWriter, PcmWriter, save_audio

    sampling = {f.name: getattr(args, f.name, None) for f in fields(SamplingParams)}
    if args.greedy:
        sampling |= {"do_sample": False, "subtalker_dosample": False}
    check_temperatures(sampling, tts.defaults, "--{option}", "--greedy")
    draws = args.seed is None and processes.together()
    options = {
        "language": args.language,
        # One request: a seed that is drawn must be the same in all processes.
        "seed": processes.agreed(secrets.randbits(32)) if draws else args.seed,
        "sampling": sampling,
        "normalize": args.normalize,
        "split": args.split,
        "stream_text": stream_text if args.stream_text is None else args.stream_text,
    }
    started = time.perf_counter()
    text: str | Iterable[str] = args.text
    if args.text == "-":
        if processes.together():
            raise RequestError(
                "several processes cannot read one text from stdin; give it as an argument."
            )
        parts = _without_last_breaks(_parts(sys.stdin))
        text = "".join(parts) if args.stream_text is False else parts
    request = make(text=text, **options)
    if args.stream or not isinstance(text, str) or str(args.output) == "-":
        samples, first = 0, math.nan
        to_player = str(args.output) == "-"
        chunks = _Chunks(tts.stream(request))
        output: Any = contextlib.nullcontext()
        if processes.writes():
            output = PcmWriter() if to_player else AudioWriter(args.output, tts.sample_rate)
        with output as writer:
            try:
                for chunk in chunks:
                    if not samples:
                        first = time.perf_counter() - started
                    if writer is not None:
                        writer.write(chunk)
                    samples += len(chunk)
            except KeyboardInterrupt:
                if to_player or not samples or args.output.suffix.lower() == ".npy":
                    note("qtts: interrupted; no file was written.")
                else:
                    seconds = samples / tts.sample_rate
                    note(f"qtts: interrupted; {args.output} holds the first {seconds:.2f} s.")
                return 130
        note(f"first audio after {first * 1e3:.0f} ms")
        ended = chunks.ended
    else:
        (speech,) = tts.generate([request])
        samples, ended = len(speech.wave), speech.ended
        if processes.writes():
            save_audio(args.output, speech.wave, tts.sample_rate)
    if not ended:
        note(
            "note: the speech was cut at its greatest number of frames; raise --max-new-tokens, "
            "or shorten the text if that does not help."
        )
    seconds = time.perf_counter() - started
    length = samples / tts.sample_rate
    done = "wrote" if processes.writes() else "process 0 writes"
    note(f"{done} {args.output}: {length:.2f} s of speech in {seconds:.2f} s")
    return 0


class _Chunks:
    """Audio chunks of a stream; `ended` (see `Speech`) is set after the last one."""

    def __init__(self, chunks: Any) -> None:
        self._chunks, self.ended = chunks, False

    def __iter__(self) -> Iterator[Any]:
        self.ended = yield from self._chunks


def _without_last_breaks(parts: Iterable[str]) -> Iterator[str]:
    """A text without the line breaks at its end, which `echo` adds."""
    held = ""
    for part in parts:
        text = held + part
        kept = text.rstrip("\r\n")
        held = text[len(kept) :]
        if kept:
            yield kept


def _parts(stream: Any) -> Iterator[str]:
    """Text as it arrives: line by line, or the bytes that a pipe has so far."""
    read = getattr(getattr(stream, "buffer", None), "read1", None)
    if read is None:
        yield from stream
        return
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while data := read(4096):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise RequestError(f"the text on stdin is not UTF-8 ({error}); convert it.") from error
