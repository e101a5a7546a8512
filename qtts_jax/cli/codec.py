"""`qtts encode`, `decode`, `embed` and `voice`: audio to codes and features, codes to audio."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qtts_jax import processes
from qtts_jax.cli.common import (
    add_allow_url,
    add_decoder_voice,
    add_model,
    decoder_voice,
    load_tokenizer,
    load_tts,
    note,
)
from qtts_jax.errors import RequestError


def add_commands(commands: Any) -> None:
    """Add the parsers of these commands."""
    encode = commands.add_parser("encode", help="audio to codes [T, Q], at 25 Hz [T]")
    encode.add_argument("audio", help="a recording, in any format that libsndfile or PyAV reads")
    add_allow_url(encode)
    encode.add_argument("codes", type=Path, help=".npy to write")
    add_model(encode, tts=False)
    processes.add_options(encode)
    encode.set_defaults(run=_encode, apart=False)

    decode = commands.add_parser("decode", help="codes to audio")
    decode.add_argument("codes", type=Path, help=".npy of integers")
    decode.add_argument("audio", type=Path, help=".wav, or .npy for a bare float32 array")
    add_model(decode, tts=False)
    decoding = add_decoder_voice(decode)
    decoding.add_argument("--noise", type=Path, help=".npy [frames, bins] to start from")
    decoding.add_argument("--seed", type=int, help="of the noise (default: 0)")
    processes.add_options(decode)
    decode.set_defaults(run=_decode, apart=False)

    embed = commands.add_parser(
        "embed", help="audio to the x-vector of its speaker, which clones are made from"
    )
    embed.add_argument("audio", help="a recording of the speaker")
    add_allow_url(embed)
    embed.add_argument("vector", type=Path, help=".npy to write")
    add_model(embed)
    embed.set_defaults(run=_embed)

    voice = commands.add_parser("voice", help="audio to the voice of a 25 Hz decoder")
    voice.add_argument("audio", help="a recording of the voice")
    add_allow_url(voice)
    voice.add_argument("vector", type=Path, help=".npy to write: x-vector [X]")
    voice.add_argument("mel", type=Path, help=".npy to write: reference mel [T, M]")
    add_model(voice, tts=False)
    voice.set_defaults(run=_voice)


def _encode(args: argparse.Namespace) -> int:
    from qtts_jax.io.array_target import check_array_target
    from qtts_jax.io.atomic_files import npy_bytes, write_whole
    from qtts_jax.io.audio import fetch_url

    check_array_target(args.codes, args.audio)
    tokenizer = load_tokenizer(args)
    codes = tokenizer.encode(fetch_url(args.audio, args.allow_url))[0]
    if not processes.writes():
        return 0
    write_whole(args.codes, npy_bytes(codes))
    count = tokenizer.codebooks
    note(f"wrote {args.codes}: {len(codes)} frames of {count} code{'s' * (count > 1)}")
    return 0


def _decode(args: argparse.Namespace) -> int:
    from qtts_jax.io.audio_writer import save_audio
    from qtts_jax.speech_tokenizer.voice_files import read_array

    codes = read_array(args.codes, "codes")
    if codes.ndim == 3 and len(codes) > 1:
        raise RequestError(
            f"{args.codes} holds the codes of {len(codes)} utterances, but one is written; save "
            "each in a file of its own."
        )
    tokenizer = load_tokenizer(args)
    named = {"--noise": args.noise, "--seed": args.seed}
    voice = decoder_voice(args, tokenizer, args.ref_audio, named)
    options: dict[str, Any] = {}
    if tokenizer.needs_voice:
        noise = None if args.noise is None else read_array(args.noise, "the noise")
        options = {"voice": voice, "noise": noise, "seed": args.seed or 0}
    waves, rate = tokenizer.decode(codes, **options)
    if not processes.writes():
        return 0
    save_audio(args.audio, waves[0], rate)
    note(f"wrote {args.audio}: {len(waves[0]) / rate:.2f} s")
    return 0


def _embed(args: argparse.Namespace) -> int:
    from qtts_jax.io.array_target import check_array_target
    from qtts_jax.io.atomic_files import npy_bytes, write_whole
    from qtts_jax.io.audio import fetch_url

    check_array_target(args.vector, args.audio)
    vector = load_tts(args).embed_speaker(fetch_url(args.audio, args.allow_url))
    write_whole(args.vector, npy_bytes(vector))
    note(f"wrote {args.vector}: {len(vector)} numbers")
    return 0


def _voice(args: argparse.Namespace) -> int:
    from qtts_jax.io.array_target import check_array_target
    from qtts_jax.io.atomic_files import npy_bytes, write_whole
    from qtts_jax.io.audio import fetch_url

    for target in (args.vector, args.mel):
        check_array_target(target, args.audio)
    voice = load_tokenizer(args).reference_voice(fetch_url(args.audio, args.allow_url))
    write_whole(args.vector, npy_bytes(voice.xvector))
    write_whole(args.mel, npy_bytes(voice.ref_mel))
    note(
        f"wrote {args.vector}: {len(voice.xvector)} numbers, and {args.mel}: "
        f"{len(voice.ref_mel)} frames"
    )
    return 0
