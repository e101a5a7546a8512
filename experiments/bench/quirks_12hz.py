"""Effect of each quirk of the official 12 Hz tokenizer on codes and audio.

    python -m experiments.bench.quirks_12hz               # random weights, released depths
    python -m experiments.bench.quirks_12hz --model DIR   # a converted checkpoint instead
    python -m experiments.bench.quirks_12hz --model DIR --audio speech.wav

Every quirk is switched alone, on a minute of synthetic voice-like sound (or the given recording,
repeated to a minute). Random weights have the released depth, strides and windows at a sixteenth
of the width; they show where a quirk acts and how far it reaches, a trained checkpoint shows how
much. Expected with random weights (experiments/results/quirks_12hz.json):

- encoder window (an option for streams without end): codes equal for 127 frames (10 s, the
  window), then 87 % of them differ; the state of a stream takes 0.5 MB, against 3.1 MB at a minute
  and growing without the window, which is the default and the official form.
- zeros instead of repeated edges: only the first frame and a ragged last one differ.
- padding to the longest: only the last frame of a shorter item differs.
- chunked decode: equal for 300 frames, then an error of -6 dB (of the audio) in the five frames
  after a seam, -13 dB after 25 frames and -48 dB after 150.
- proportional cut: one sample early for 3.7 % of all pairs of lengths up to 200 frames.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from qtts_jax import SpeechTokenizer
from qtts_jax.configs.presets import tokenizer_12hz
from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.functional import initialize
from qtts_jax.io.audio import load_audio
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz

RESULTS = Path(__file__).parents[1] / "results" / "quirks_12hz.json"
SECONDS = 60
NARROWER = 16


def narrow(config: Tokenizer12HzConfig) -> Tokenizer12HzConfig:
    """The released configuration at a sixteenth of its widths, with layer scales that matter."""

    def transformer(c: Any) -> Any:
        width = c.width // NARROWER
        return dataclasses.replace(
            c,
            width=width,
            heads=2,
            kv_heads=2,
            head_dim=16,
            ffn_width=c.ffn_width // NARROWER,
            layer_scale=0.4,
            init_std=width**-0.5,
        )

    def quantizer(c: Any) -> Any:
        return dataclasses.replace(
            c, entries=256, width=c.width // NARROWER, model_width=c.model_width // NARROWER
        )

    e, d = config.encoder, config.decoder
    encoder = dataclasses.replace(
        e,
        filters=e.filters // NARROWER,
        transformer=transformer(e.transformer),
        quantizer=quantizer(e.quantizer),
    )
    decoder = dataclasses.replace(
        d,
        latent_width=d.latent_width // NARROWER,
        decoder_width=d.decoder_width // NARROWER,
        transformer=transformer(d.transformer),
        quantizer=quantizer(d.quantizer),
    )
    return dataclasses.replace(config, encoder=encoder, decoder=decoder)


def random_tokenizer() -> SpeechTokenizer:
    """Random weights whose codebook entries have the scale of the encoder's vectors."""
    config = narrow(tokenizer_12hz())
    params = initialize(Tokenizer12Hz, config, 0)
    for stage in params["decoder"]["upsample"].values():
        stage["convnext"]["scale"] = jnp.full_like(stage["convnext"]["scale"], 0.3)
    return SpeechTokenizer.from_params(config, params)


def synthetic_voice(n: int, rate: int) -> np.ndarray:
    """A gliding harmonic tone in syllables, over a little noise."""
    rng, t = np.random.default_rng(0), np.arange(n) / rate
    pitch = 140 + 40 * np.sin(2 * np.pi * 0.31 * t) + 15 * np.sin(2 * np.pi * 2.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tone = sum(np.sin(h * phase + h) / h for h in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 3.3 * t) + 0.4, 0, 1)
    return (0.15 * tone * syllables + 0.01 * rng.standard_normal(n)).astype(np.float32)


def with_quirks(tokenizer: SpeechTokenizer, **quirks: Any) -> SpeechTokenizer:
    return SpeechTokenizer.from_params(
        tokenizer.config, tokenizer.params, quirks=Quirks12Hz(**quirks)
    )


def frames_that_differ(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Where and how often two [T, Q] code arrays differ."""
    differ = a != b
    frames = np.flatnonzero(differ.any(axis=1))
    return {
        "frames": len(a),
        "frames_that_differ": len(frames),
        "first": int(frames[0]) if len(frames) else None,
        "codes_that_differ_after_first": float(differ[frames[0] :].mean()) if len(frames) else 0.0,
        "semantic_codes_that_differ": int(differ[:, 0].sum()),
    }


def decibels(error: np.ndarray, signal: np.ndarray) -> float:
    """Power of an error below that of the signal."""
    power = np.mean(np.square(error, dtype=np.float64)) + 1e-30
    return float(10 * np.log10(power / (np.mean(np.square(signal, dtype=np.float64)) + 1e-30)))


def state_bytes(tokenizer: SpeechTokenizer, frames: int) -> int:
    capacity = None if tokenizer.quirks.encoder_window else frames
    state = jax.eval_shape(
        lambda: tokenizer.programs.encoder_state(tokenizer.params["encoder"], 1, capacity)
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def measure(tokenizer: SpeechTokenizer, wave: np.ndarray) -> dict[str, Any]:
    """All quirks, each alone."""
    rate, frame = tokenizer.config.input_sample_rate, tokenizer.samples_per_frame
    codes = tokenizer.encode((wave, rate))[0]
    results: dict[str, Any] = {}

    windowed = with_quirks(tokenizer, encoder_window=True)
    results["encoder_window"] = frames_that_differ(codes, windowed.encode((wave, rate))[0]) | {
        "stream_state_bytes_with_window": state_bytes(windowed, len(codes)),
        "stream_state_bytes_without": state_bytes(tokenizer, len(codes)),
    }

    ragged = wave[: 20 * frame + 700]
    zeros = with_quirks(tokenizer, downsample_padding="zeros")
    results["downsample_padding"] = frames_that_differ(
        tokenizer.encode((ragged, rate))[0], zeros.encode((ragged, rate))[0]
    )

    together = with_quirks(tokenizer, pad_to_longest=True).encode(
        [wave[: 40 * frame], ragged], rate
    )
    results["pad_to_longest"] = frames_that_differ(tokenizer.encode((ragged, rate))[0], together[1])

    exact = tokenizer.decode(codes)[0][0]
    official = Quirks12Hz.official()
    chunked = with_quirks(
        tokenizer, decode_chunk=official.decode_chunk, decode_context=official.decode_context
    ).decode(codes)[0][0]
    seam = (official.decode_chunk or 0) * frame
    error = chunked - exact
    results["decode_chunk"] = {
        "largest_error_before_seam": float(np.abs(error[:seam]).max()),
        "largest_error_after_seam": float(np.abs(error[seam:]).max()),
    } | {
        f"error_db_frames_{a}_to_{b}_after_seam": decibels(
            error[seam + a * frame : seam + b * frame], exact[seam + a * frame : seam + b * frame]
        )
        for a, b in ((0, 5), (5, 25), (25, 75), (75, 150), (150, 300))
    }

    early = sum(
        int(r / (r + n) * ((r + n) * frame)) != r * frame
        for r in range(1, 201)
        for n in range(1, 201)
    )
    results["proportional_cut"] = {"lengths": 200 * 200, "cut_one_sample_early": early}
    return results


def main() -> None:
    """Measure and write the results."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument(
        "--model", help="converted checkpoint or tokenizer folder (default: random weights)"
    )
    parser.add_argument("--audio", help="recording (default: synthetic sound)")
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS, help="JSON file for the results"
    )
    args = parser.parse_args()
    tokenizer = SpeechTokenizer.from_pretrained(args.model) if args.model else random_tokenizer()
    rate = tokenizer.config.input_sample_rate
    wave = synthetic_voice(SECONDS * rate, rate)
    if args.audio:
        wave = np.resize(load_audio(args.audio, rate), SECONDS * rate)
    results = {
        "weights": args.model or "random",
        "audio": args.audio or "synthetic",
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "results": measure(tokenizer, wave),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results["results"], indent=1))


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
