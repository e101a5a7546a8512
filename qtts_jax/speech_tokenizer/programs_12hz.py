"""The jitted steps of the tokenizer, compiled once per configuration and shape.

A program takes whole frames in a few fixed sizes, so that a new text or recording of any length
compiles nothing: offline input is covered by blocks of which the last may be padded (all layers
are causal, so padding harms nothing before it), a stream is split into exact powers of two.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.functional import Params, bind, matmul_precision, shapes_of
from qtts_jax.models.tokenizer_12hz.decoder import Decoder, DecoderState
from qtts_jax.models.tokenizer_12hz.encoder import Encoder, EncoderState

# Frames of one program. The widest activation of the released decoder is 0.7 MB a frame.
BLOCKS = (128, 64, 32, 16, 8)
# Bounds the memory of a batch: rows times frames of one program.
MAX_ROW_FRAMES = 256
ROWS = (8, 4, 2, 1)
# A block may be padded by this part of the frames it must hold; otherwise a smaller one is used.
PADDING = 0.25


def cover(frames: int, rows: int = 1) -> list[int]:
    """Block sizes whose sum is at least `frames`, at most a quarter of the last being padding.

    Fewer frames than the smallest block take one of those.
    """
    sizes = [size for size in BLOCKS if size * rows <= MAX_ROW_FRAMES]
    chosen: list[int] = []
    while frames > 0:
        over = [size for size in sizes if size >= frames]
        if over and (over[-1] == sizes[-1] or over[-1] <= (1 + PADDING) * frames):
            chosen.append(over[-1])
            break
        chosen.append(next(size for size in sizes if size <= frames))
        frames -= chosen[-1]
    return chosen


def split(frames: int) -> list[int]:
    """Powers of two, largest first, whose sum is exactly `frames`."""
    chosen = [BLOCKS[0]] * (frames // BLOCKS[0])
    rest = frames % BLOCKS[0]
    return chosen + [1 << bit for bit in reversed(range(rest.bit_length())) if rest >> bit & 1]


def group(lengths: list[int]) -> list[list[int]]:
    """Indices of items to process together: similar lengths, in batches of the sizes `ROWS`."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups = []
    while order:
        rows = next(size for size in ROWS if size <= len(order))
        groups.append(order[:rows])
        order = order[rows:]
    return groups


class Programs:
    """Pure, jitted steps of both halves; use `programs` to get the shared instance.

    Attributes:
        encoder, decoder: graph definitions, for programs of one's own (`functional.bind`).
    """

    def __init__(self, config: Tokenizer12HzConfig, quirks: Quirks12Hz) -> None:
        self.config, self.quirks = config, quirks
        self.encoder = nnx.graphdef(shapes_of(Encoder, config.encoder, config.codebooks, quirks))
        self.decoder = nnx.graphdef(shapes_of(Decoder, config.decoder))
        # The state is donated: it is updated in place.
        self.encode = jax.jit(self._encode, donate_argnums=3)
        self.decode = jax.jit(self._decode, donate_argnums=2)
        self.encoder_state = jax.jit(self._encoder_state, static_argnums=(1, 2))
        self.decoder_state = jax.jit(self._decoder_state, static_argnums=1)

    def _encode(
        self, params: Params, samples: jax.Array, lengths: jax.Array, state: EncoderState
    ) -> tuple[jax.Array, EncoderState]:
        """`Encoder.step` with the encoder's parameters."""
        with matmul_precision(params):
            return bind(self.encoder, params).step(samples, state, lengths)

    def _decode(
        self, params: Params, codes: jax.Array, state: DecoderState
    ) -> tuple[jax.Array, DecoderState]:
        """`Decoder.step` with the decoder's parameters."""
        with matmul_precision(params):
            return bind(self.decoder, params).step(codes, state)

    def _encoder_state(self, params: Params, batch: int, capacity: int | None) -> EncoderState:
        """`Encoder.init_state` in the dtype of the parameters."""
        return bind(self.encoder, params).init_state(batch, _dtype(params), capacity)

    def _decoder_state(self, params: Params, batch: int) -> DecoderState:
        """`Decoder.init_state` in the dtype of the parameters."""
        return bind(self.decoder, params).init_state(batch, _dtype(params))


@functools.lru_cache(maxsize=32)
def programs(config: Tokenizer12HzConfig, quirks: Quirks12Hz) -> Programs:
    """The programs of a configuration; equal configurations share one instance and its cache."""
    return Programs(config, quirks)


def _dtype(params: Params) -> jnp.dtype:
    return jax.tree.leaves(params)[0].dtype
