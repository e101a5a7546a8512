"""The jitted programs of the 25 Hz decoder, compiled once per configuration and shape."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from qtts_jax.configs.tokenizer_25hz_decoder import Decoder25HzConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, bind, matmul_precision, shapes_of
from qtts_jax.models.speaker_encoder import min_frames
from qtts_jax.models.tokenizer_25hz.decoder import Decoder25Hz, Decoder25HzState
from qtts_jax.models.tokenizer_25hz.flow import Conditioning
from qtts_jax.models.tokenizer_25hz.schedule import Schedule, frame_noise
from qtts_jax.placement import per_shard, row_count

# Defaults of the official code: points of the solution, and guidance.
STEPS, GUIDANCE = 10, 0.5
# Reference mels are padded to a multiple of this.
REFERENCE_FRAMES = 128


class DecodePrograms:
    """Jitted steps of the decoder; use `decode_programs` to get the shared instance.

    Noise may be given as an array [B, T * repeats, M], or as random keys [B]: then every mel frame
    draws by its position, and a stream draws what the whole decode draws.
    """

    def __init__(self, config: Decoder25HzConfig, mesh: Mesh | None = None) -> None:
        self.config, self.mesh, self.devices = config, mesh, row_count(mesh)
        module = shapes_of(Decoder25Hz, config)
        self.module: Decoder25Hz = module
        self.graphdef = nnx.graphdef(module)
        self.condition = jax.jit(per_shard(self._condition, mesh))
        self.decode = jax.jit(self._decode)
        self.init_state = jax.jit(self._init_state, static_argnums=(1, 2, 3))
        # The state is donated: it is updated in place.
        self.step_blocks = jax.jit(self._step_blocks, static_argnums=8, donate_argnums=7)

    def _condition(
        self, params: Params, xvector: jax.Array, reference: jax.Array, lengths: jax.Array
    ) -> Conditioning:
        """`Flow.condition`."""
        with matmul_precision(params):
            return bind(self.graphdef, params).flow.condition(xvector, reference, lengths)

    def _decode(
        self,
        params: Params,
        codes: jax.Array,
        noise: jax.Array,
        lengths: jax.Array,
        conditioning: Conditioning,
        schedule: Schedule,
        guidance: jax.Array,
    ) -> jax.Array:
        """`Decoder25Hz.__call__`: samples [B, T * samples_per_code] float32."""

        def decode(
            params: Params,
            schedule: Schedule,
            guidance: jax.Array,
            codes: jax.Array,
            noise: jax.Array,
            lengths: jax.Array,
            conditioning: Conditioning,
        ) -> jax.Array:
            noise = self._noise(noise, jnp.zeros(codes.shape[:1], jnp.int32), codes.shape[1])
            with matmul_precision(params):
                model = bind(self.graphdef, params)
                samples = model(codes, noise, conditioning, schedule, guidance, lengths)
            return samples.astype(jnp.float32)

        return per_shard(decode, self.mesh, 3)(
            params, schedule, guidance, codes, noise, lengths, conditioning
        )

    def _init_state(
        self, params: Params, batch: int, slopes: int, look_ahead: int | None
    ) -> Decoder25HzState:
        """`Decoder25Hz.init_state`."""

        def make(params: Params) -> Decoder25HzState:
            rows = batch // self.devices
            return bind(self.graphdef, params).init_state(rows, slopes, look_ahead)

        return per_shard(make, self.mesh)(params)

    def _step_blocks(
        self,
        params: Params,
        codes: jax.Array,
        noise: jax.Array,
        lengths: jax.Array,
        conditioning: Conditioning,
        schedule: Schedule,
        guidance: jax.Array,
        state: Decoder25HzState,
        look_ahead: int | None,
    ) -> tuple[jax.Array, Decoder25HzState]:
        """`Decoder25Hz.step`, samples float32."""

        def step(
            params: Params,
            schedule: Schedule,
            guidance: jax.Array,
            codes: jax.Array,
            noise: jax.Array,
            lengths: jax.Array,
            conditioning: Conditioning,
            state: Decoder25HzState,
        ) -> tuple[jax.Array, Decoder25HzState]:
            noise = self._noise(noise, state.flow.position, codes.shape[1])
            with matmul_precision(params):
                samples, state = bind(self.graphdef, params).step(
                    codes, noise, lengths, conditioning, schedule, guidance, state, look_ahead
                )
            return samples.astype(jnp.float32), state

        return per_shard(step, self.mesh, 3)(
            params, schedule, guidance, codes, noise, lengths, conditioning, state
        )

    def _noise(self, noise: jax.Array, position: jax.Array, codes: int) -> jax.Array:
        """The given noise, or what random keys draw for so many codes from a frame position on."""
        if not jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
            return noise
        dit = self.config.dit
        return frame_noise(noise, position, codes * dit.repeats, dit.n_mels)

    def condition_padded(
        self,
        params: Params,
        xvector: np.ndarray,
        reference: np.ndarray,
        lengths: np.ndarray | None = None,
    ) -> Conditioning:
        """Conditioning of voices, their reference mels padded to one of a few lengths.

        Args:
            xvector: [B, X].
            reference: [B, T, M] log-mel; `lengths` [B] frames of it are real, or all.

        Raises:
            AudioError: the reference has too few frames.
        """
        reference = np.asarray(reference, np.float32)
        frames = reference.shape[1]
        if lengths is None:
            lengths = np.full(len(reference), frames)
        padded = reference
        if frames >= min_frames(self.config.dit.reference_encoder):  # fewer are refused
            padded = np.pad(reference, ((0, 0), (0, -frames % REFERENCE_FRAMES), (0, 0)))
        return self.condition(
            params, jnp.asarray(xvector, jnp.float32), padded, np.asarray(lengths, np.int32)
        )

    @property
    def block_codes(self) -> int:
        """Codes of an attention block, the unit of a stream.

        Raises:
            ConfigError: blocks do not hold whole codes.
        """
        block, repeats = self.config.dit.block, self.config.dit.repeats
        if block % repeats:
            raise ConfigError(
                f"dit_config: blocks of {block} frames do not hold whole codes of {repeats} "
                "frames; decode in one piece, or make block_size a multiple of repeats."
            )
        return block // repeats

    def pad_noise(self, noise: np.ndarray | jax.Array, codes: int) -> np.ndarray | jax.Array:
        """Noise padded with zeros to so many codes; random keys are returned as they are."""
        if jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
            return noise
        return pad_time(np.asarray(noise, np.float32), codes * self.config.dit.repeats)

    def cut_noise(
        self, noise: np.ndarray | jax.Array, start: int, codes: int
    ) -> np.ndarray | jax.Array:
        """The noise of a range of codes; random keys are returned as they are."""
        if jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
            return noise
        repeats = self.config.dit.repeats
        return noise[:, start * repeats : (start + codes) * repeats]


@functools.lru_cache(maxsize=32)
def decode_programs(config: Decoder25HzConfig, mesh: Mesh | None = None) -> DecodePrograms:
    """The programs of a configuration; equal configurations share one instance and its cache.

    Args:
        mesh: devices over which rows are split; None for a single one.
    """
    return DecodePrograms(config, mesh)


def pad_time(x: np.ndarray, length: int) -> np.ndarray:
    """x [B, T, ...] padded with zeros to [B, length, ...]."""
    return np.pad(x, ((0, 0), (0, length - x.shape[1]), *((0, 0),) * (x.ndim - 2)))
