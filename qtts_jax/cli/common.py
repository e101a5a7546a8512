"""Options and helpers that several commands of `qtts` share."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from qtts_jax import compilation_cache, embedded, processes
from qtts_jax.errors import ConfigError, RequestError

# Modules that import JAX are imported by the functions that need them, so that `qtts --help` and
# usage errors do not wait for it.

DTYPES = ("float32", "bfloat16")
WEIGHTS = ("int8", "fp8", "int4")


def note(message: str) -> None:
    """Print a line on stderr."""
    print(processes.prefix() + message, file=sys.stderr, flush=True)


def positive(text: str) -> int:
    """A whole number of at least 1, as the type of an argument."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def use_compile_cache(directory: str | None) -> None:
    """Keep compiled programs in `directory` ("off" for nowhere), None for the usual one."""
    if directory is not None:
        os.environ[compilation_cache.SWITCH] = directory


def add_model(parser: argparse.ArgumentParser, tts: bool = True) -> None:
    """Options that choose and load a checkpoint; without `tts` only its speech tokenizer."""
    parser.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="a converted checkpoint (default: nano, which is inside the package)",
    )
    default = "bfloat16, on a CPU float32" if tts else "float32"
    parser.add_argument(
        "--dtype", choices=DTYPES, help=f"of weights and activations (default: {default})"
    )
    if tts:
        parser.add_argument(
            "--weights",
            choices=WEIGHTS,
            help="store the language models in one byte a value; int4: mostly in four bits "
            "(default: in --dtype)",
        )
    parser.add_argument("--mesh", help="devices to split the work over, such as data=2,model=4")
    parser.add_argument(
        "--compile-cache",
        metavar="DIR",
        help="directory that keeps compiled programs for later runs, or off (default: that of "
        f"${compilation_cache.SWITCH}, else {compilation_cache.DEFAULT})",
    )
    parser.add_argument(
        "--exact-reference",
        action="store_true",
        help="reproduce every quirk of the official code",
    )


def add_decoder_voice(parser: argparse.ArgumentParser, ref_audio: bool = True) -> Any:
    """Options for the speaker features and the flow of a 25 Hz decoder, in a group."""
    group = parser.add_argument_group("decoder of a 25 Hz tokenizer")
    if ref_audio:
        group.add_argument(
            "--ref-audio",
            help="a recording of the voice to decode with, at 25 Hz only; "
            "`qtts clone` speaks in the voice of a recording",
        )
    group.add_argument("--xvector", type=Path, help=".npy [X], the voice without a recording")
    group.add_argument("--ref-mel", type=Path, help=".npy [T, M], belongs to --xvector")
    add_flow(group)
    return group


def add_flow(group: Any) -> None:
    """Options for the flow of a 25 Hz decoder."""
    group.add_argument("--steps", type=int, help="time points of the flow (default: 10)")
    group.add_argument("--guidance", type=float, help="of the flow (default: 0.5)")


def model_directory(args: argparse.Namespace) -> Path:
    """The folder of the checkpoint that the options choose."""
    return embedded.DIRECTORY if args.model is None else args.model


def _noted_directory(args: argparse.Namespace) -> Path:
    if args.model is None:
        note(f"note: no --model given; using {embedded.describe()}")
    return model_directory(args)


def load_tts(args: argparse.Namespace) -> Any:
    """The checkpoint that the options choose, as a `QwenTTS`."""
    from qtts_jax.tts.qwen_tts import QwenTTS

    return QwenTTS.from_pretrained(
        _noted_directory(args),
        dtype=args.dtype,
        exact_reference=args.exact_reference,
        weights=args.weights,
        mesh=_mesh(args),
    )


def load_tokenizer(args: argparse.Namespace) -> Any:
    """The `SpeechTokenizer` of the checkpoint that the options choose."""
    from qtts_jax.speech_tokenizer.base import SpeechTokenizer

    return SpeechTokenizer.from_pretrained(
        _noted_directory(args),
        dtype=args.dtype or "float32",
        exact_reference=args.exact_reference,
        mesh=_mesh(args),
    )


def _mesh(args: argparse.Namespace) -> Any:
    """The mesh of --mesh, or None; of its own devices in a process that works apart."""
    if args.mesh is None:
        if processes.together():
            raise ConfigError(
                f"{processes.count()} processes work together on a mesh of all their devices; "
                "describe it by --mesh."
            )
        return None
    from qtts_jax.sharding import parse_mesh

    return parse_mesh(args.mesh, processes.own_devices())


def set_flow(args: argparse.Namespace, tokenizer: Any, named: dict[str, Any]) -> None:
    """Set the flow of a 25 Hz decoder; for a 12 Hz one, refuse these options and those of `named`.

    Args:
        named: further options that only a 25 Hz decoder takes, with their values.
    """
    if tokenizer.needs_voice:
        tokenizer.set_flow(args.steps, args.guidance)
        return
    named = named | {"--steps": args.steps, "--guidance": args.guidance}
    surplus = ", ".join(name for name, value in named.items() if value is not None)
    if surplus:
        raise RequestError(f"only a 25 Hz tokenizer takes {surplus}; leave that out.")


def decoder_voice(
    args: argparse.Namespace,
    tokenizer: Any,
    recording: str | None = None,
    named: dict[str, Any] | None = None,
) -> Any:
    """The `ReferenceVoice` that the options name for a 25 Hz decoder, or None; sets its flow, too.

    Args:
        recording: a recording of the voice, instead of --xvector and --ref-mel.
        named: as in `set_flow`.
    """
    from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
    from qtts_jax.speech_tokenizer.voice_files import read_array

    options = {"--ref-audio": recording, "--xvector": args.xvector, "--ref-mel": args.ref_mel}
    set_flow(args, tokenizer, options | (named or {}))
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


def add_normalize(parser: argparse.ArgumentParser) -> None:
    """Option for the text front end."""
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        help="speak numbers, abbreviations and marks as words (default: as the model was trained)",
    )


def add_text_treatment(parser: argparse.ArgumentParser) -> None:
    """Options for what is done to a text before it is spoken."""
    add_normalize(parser)
    parser.add_argument(
        "--split",
        action=argparse.BooleanOptionalAction,
        help="speak a long text in parts with one voice (default: unless --exact-reference)",
    )


def add_allow_url(parser: argparse.ArgumentParser) -> None:
    """Add the option that allows recordings named by a URL."""
    parser.add_argument(
        "--allow-url", action="store_true", help="fetch a recording that is named by a URL"
    )
