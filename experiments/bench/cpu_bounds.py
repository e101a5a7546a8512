"""Library of `bench.cpu`: least seconds of its measures on a processor.

A codec is bound by products, a frame of the talker and code predictor by reading their weights.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments import command
from experiments.bench.decode_figures import bytes_per_frame
from experiments.bench.streams import timed
from qtts_jax import QwenTTS

# Side of a square matrix whose product is bound by arithmetic, and bytes that no cache holds.
SIDE, READ = 4096, 2**31
BLOCK, FRAMES = 64, 125  # frames of the program whose operations are counted, and of the measure
# The encoder takes more frames in a loop over blocks of time, whose body XLA counts once.
ENCODED = 8


def rate(run: Callable[[], Any], amount: float) -> float:
    """Amount a second, the median of five after one unmeasured."""
    run()
    return amount / statistics.median(timed(run) for _ in range(5))


def product_flops_per_second() -> float:
    """Operations a second of a float32 matrix product."""
    x = jax.random.normal(jax.random.key(0), (SIDE, SIDE), jnp.float32)
    multiply = jax.jit(lambda x: jnp.matmul(x, x, precision="highest"))
    return rate(lambda: multiply(x).block_until_ready(), 2.0 * SIDE**3)


def bytes_read_per_second() -> float:
    """Bytes a second of the sum of a large array."""
    x = jnp.ones(READ // 4, jnp.float32)
    add = jax.jit(jnp.sum)
    return rate(lambda: add(x).block_until_ready(), READ)


def bounds(tts: QwenTTS) -> dict[str, float]:
    """Least seconds of each measure: its operations or bytes over what the processor can do.

    The operations are those of XLA's count for a program of 64 frames (of 8 for the encoder), times
    125 / 64.
    """
    codec = tts.speech_tokenizer
    programs = codec.programs
    decoder, encoder = codec.part("decoder"), codec.part("encoder")
    codes = jax.ShapeDtypeStruct((1, BLOCK, codec.codebooks), jnp.int32)
    state = programs.decoder_state.eval_shape(decoder, 1)
    decode = programs.decode.lower(decoder, codes, state)
    samples = jax.ShapeDtypeStruct((1, ENCODED * codec.min_samples), jnp.float32)
    state = programs.encoder_state.eval_shape(encoder, 1, 2 * BLOCK)
    lengths = jax.ShapeDtypeStruct((1,), jnp.int32)
    encode = programs.encode.lower(encoder, samples, lengths, state)
    flops, read = product_flops_per_second(), bytes_read_per_second()
    return {
        "product_gflop_per_s": flops / 1e9,
        "read_gb_per_s": read / 1e9,
        "decode_125_frames_s": FRAMES / BLOCK * decode.cost_analysis()["flops"] / flops,
        "encode_10_s_s": FRAMES / ENCODED * encode.cost_analysis()["flops"] / flops,
        "frame_0.6B_s": bytes_per_frame(tts) / read,
    }


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.bench.cpu"))
