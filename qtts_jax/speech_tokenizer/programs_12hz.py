"""The jitted steps of the 12 Hz encoder and decoder, compiled once per configuration and shape.

A program takes whole frames in a few fixed sizes, so that a new text or recording of any length
compiles nothing: offline input is covered by blocks of which the last may be padded (all layers
are causal, so padding harms nothing before it), a stream is split into exact powers of two.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.functional import Params, bind, matmul_precision, shapes_of
from qtts_jax.models.tokenizer_12hz.decoder import Decoder, DecoderState
from qtts_jax.models.tokenizer_12hz.encoder import Encoder, EncoderState
from qtts_jax.placement import per_shard, row_count
from qtts_jax.speech_tokenizer.batch_shapes import BATCH_SIZES

# Frames of one program. The widest activation of the released decoder is 0.7 MB a frame.
BLOCKS = (128, 64, 32, 16, 8)
# Bounds the memory of a batch on a device: rows times frames of one program.
MAX_BATCH_FRAMES = 256
# Block sizes of a batch of each size.
BATCH_BLOCKS = {
    batch: tuple(size for size in BLOCKS if size * batch <= MAX_BATCH_FRAMES)
    for batch in BATCH_SIZES
}


class Programs12Hz:
    """Pure, jitted steps of both halves; use `programs_12hz` to get the shared instance.

    On a mesh the rows of every argument and state are split over its data axis, so a batch must be
    a multiple of that.

    Attributes:
        encoder, decoder: graph definitions, for programs of one's own (`functional.bind`).
    """

    def __init__(
        self, config: Tokenizer12HzConfig, quirks: Quirks12Hz, mesh: Mesh | None = None
    ) -> None:
        self.config, self.quirks, self.mesh = config, quirks, mesh
        self.encoder = nnx.graphdef(shapes_of(Encoder, config.encoder, config.codebooks, quirks))
        self.decoder = nnx.graphdef(shapes_of(Decoder, config.decoder))
        # The state is donated: it is updated in place.
        self.encode = jax.jit(per_shard(self._encode, mesh), donate_argnums=3)
        self.decode = jax.jit(per_shard(self._decode, mesh), donate_argnums=2)
        self.encoder_state = jax.jit(self._encoder_state, static_argnums=(1, 2))
        self.decoder_state = jax.jit(self._decoder_state, static_argnums=1)
        self.grow_encoder = jax.jit(self._grow_encoder, static_argnums=1)

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

        def make(params: Params) -> EncoderState:
            rows = batch // row_count(self.mesh)
            return bind(self.encoder, params).init_state(rows, _dtype(params), capacity)

        return per_shard(make, self.mesh)(params)

    def _grow_encoder(self, state: EncoderState, capacity: int) -> EncoderState:
        """The state of an encoder without a window, its caches padded to `capacity` frames."""
        positions = capacity * self.config.encoder.downsample

        def grow(cache: jax.Array) -> jax.Array:  # [B, S, K, h]
            return jnp.pad(cache, ((0, 0), (0, positions - cache.shape[1]), (0, 0), (0, 0)))

        transformer = state.transformer
        layers = jax.tree.map(grow, transformer.layers)
        return state._replace(transformer=transformer._replace(layers=layers))

    def _decoder_state(self, params: Params, batch: int) -> DecoderState:
        """`Decoder.init_state` in the dtype of the parameters."""

        def make(params: Params) -> DecoderState:
            rows = batch // row_count(self.mesh)
            return bind(self.decoder, params).init_state(rows, _dtype(params))

        return per_shard(make, self.mesh)(params)


@functools.lru_cache(maxsize=32)
def programs_12hz(
    config: Tokenizer12HzConfig, quirks: Quirks12Hz, mesh: Mesh | None = None
) -> Programs12Hz:
    """The programs of a configuration; equal configurations share one instance and its cache."""
    return Programs12Hz(config, quirks, mesh)


def _dtype(params: Params) -> jnp.dtype:
    return jax.tree.leaves(params)[0].dtype
