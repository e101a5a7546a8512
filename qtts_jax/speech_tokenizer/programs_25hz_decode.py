"""The jitted programs of the 25 Hz decoder, compiled once per configuration and shape.

A whole decode runs in one program whose length is one of a few; masks make the result that of the
unpadded codes. What is too long for that goes through the exact stream in large pieces, with the
same result. A stream takes codes in any portions and computes block by block, so that its programs
have one shape.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qtts_jax.configs.tokenizer_25hz_decoder import Decoder25HzConfig
from qtts_jax.errors import ConfigError, RequestError
from qtts_jax.functional import Params, bind, matmul_precision, shapes_of
from qtts_jax.models.tokenizer_25hz.decoder import Decoder25Hz, Decoder25HzState
from qtts_jax.models.tokenizer_25hz.flow import Conditioning
from qtts_jax.models.tokenizer_25hz.schedule import SWAY, Schedule, frame_noise, schedule

# Of the official code: points of the solution, and guidance.
STEPS, GUIDANCE = 10, 0.5
# Attention blocks of one whole decode. Rows times blocks of one program are bounded for memory.
BLOCKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
MAX_ROW_BLOCKS = 256
# Blocks of one program where a decode is longer than any of these.
LONG_BLOCKS = 32
# Reference mels are padded to a multiple of this.
REFERENCE_FRAMES = 128


@dataclass(frozen=True)
class Stream:
    """A decode under way; `DecodePrograms.step` replaces it.

    Attributes:
        schedule, guidance, look_ahead: as chosen at the start.
        conditioning: the voice.
        state: memory on the device.
        codes, noise: [B, n] codes and their noise that do not fill a block yet.
        taken: codes taken in so far.
        late: samples still to come out of the programs before the first of the signal.
        done: samples given out.
        finished: whether the last codes were taken in.
    """

    schedule: Schedule
    guidance: float
    look_ahead: int | None
    conditioning: Conditioning
    state: Decoder25HzState
    codes: np.ndarray
    noise: np.ndarray | None
    taken: int
    late: int
    done: int
    finished: bool


class DecodePrograms:
    """Decoding whole and in a stream; use `decode_programs` to get the shared instance.

    Noise may be given as an array [B, T * repeats, M], or as random keys [B]: then every mel frame
    draws by its position, and a stream draws what the whole decode draws.
    """

    def __init__(self, config: Decoder25HzConfig) -> None:
        self.config = config
        module = shapes_of(Decoder25Hz, config)
        self.module: Decoder25Hz = module
        self.graphdef = nnx.graphdef(module)
        self.condition = jax.jit(self._condition)
        self.decode = jax.jit(self._decode)
        self.init_state = jax.jit(self._init_state, static_argnums=(1, 2, 3))
        # The state is donated: it is updated in place.
        self.step_blocks = jax.jit(self._step_blocks, static_argnums=8, donate_argnums=7)

    # --- programs -------------------------------------------------------------------------------

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
        noise = self._noise(noise, jnp.zeros(codes.shape[:1], jnp.int32), codes.shape[1])
        with matmul_precision(params):
            samples = bind(self.graphdef, params)(
                codes, noise, conditioning, schedule, guidance, lengths
            )
        return samples.astype(jnp.float32)

    def _init_state(
        self, params: Params, batch: int, slopes: int, look_ahead: int | None
    ) -> Decoder25HzState:
        """`Decoder25Hz.init_state`."""
        return bind(self.graphdef, params).init_state(batch, slopes, look_ahead)

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
        noise = self._noise(noise, state.flow.position, codes.shape[1])
        with matmul_precision(params):
            samples, state = bind(self.graphdef, params).step(
                codes, noise, lengths, conditioning, schedule, guidance, state, look_ahead
            )
        return samples.astype(jnp.float32), state

    def _noise(self, noise: jax.Array, position: jax.Array, codes: int) -> jax.Array:
        """Given noise, or the noise of random keys for so many codes from a frame position."""
        if not jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
            return noise
        dit = self.config.dit
        return frame_noise(noise, position, codes * dit.repeats, dit.n_mels)

    # --- whole ----------------------------------------------------------------------------------

    def voice(
        self,
        params: Params,
        xvector: np.ndarray,
        reference: np.ndarray,
        lengths: np.ndarray | None = None,
    ) -> Conditioning:
        """Conditioning of voices, the reference mels padded to one of a few lengths.

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
        if frames >= REFERENCE_FRAMES // 4:
            padded = np.pad(reference, ((0, 0), (0, -frames % REFERENCE_FRAMES), (0, 0)))
        return self.condition(
            params, jnp.asarray(xvector, jnp.float32), padded, np.asarray(lengths, np.int32)
        )

    def decode_whole(
        self,
        params: Params,
        codes: np.ndarray,
        lengths: np.ndarray,
        xvector: np.ndarray,
        reference: np.ndarray,
        noise: np.ndarray | jax.Array,
        *,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        sway: float = SWAY,
        reference_lengths: np.ndarray | None = None,
    ) -> np.ndarray:
        """Samples of whole codes, every row as if it were alone.

        The official form of a batch is `lengths` (and `reference_lengths`) of the longest for every
        row, with code 0 and mel 0 behind the shorter ones' ends.

        Args:
            codes: [B, T] int; lengths: [B].
            xvector: [B, X]; reference: [B, Tm, M], `reference_lengths` [B].
            noise: [B, T * repeats, M], or random keys [B].
            steps: points of the solution, so steps - 1 network evaluations.

        Returns:
            [B, T * samples_per_code] float32; a row is undefined behind its end.
        """
        codes = np.asarray(codes, np.int32)
        rows, total = codes.shape
        dit = self.config.dit
        conditioning = self.voice(params, xvector, reference, reference_lengths)
        plan = schedule(steps, sway)
        blocks = -(-total * dit.repeats // dit.block)
        possible = [n for n in BLOCKS if n >= blocks and n * rows <= max(MAX_ROW_BLOCKS, rows)]
        if not possible and dit.block % dit.repeats == 0:
            size = min(LONG_BLOCKS, max(1, MAX_ROW_BLOCKS // rows))
            return self._decode_long(
                params, codes, lengths, conditioning, plan, guidance, noise, size
            )
        padded = -(-(possible or [blocks])[0] * dit.block // dit.repeats)
        wave = self.decode(
            params,
            _pad(codes, padded),
            self._pad_noise(noise, padded),
            np.asarray(lengths, np.int32),
            conditioning,
            plan,
            np.float32(guidance),
        )
        return np.asarray(wave)[:, : total * self.config.samples_per_code]

    def _decode_long(
        self,
        params: Params,
        codes: np.ndarray,
        lengths: np.ndarray,
        conditioning: Conditioning,
        plan: Schedule,
        guidance: float,
        noise: np.ndarray | jax.Array,
        blocks: int,
    ) -> np.ndarray:
        """`decode_whole` through the exact stream, so many blocks at a time."""
        rows, total = codes.shape
        size = blocks * self.block_codes
        per_code = self.config.samples_per_code
        late = self.module.delay(plan.slopes, None)
        count = -(-(total * per_code + late) // (size * per_code))
        state = self.init_state(params, rows, plan.slopes, None)
        codes, noise = _pad(codes, count * size), self._pad_noise(noise, count * size)
        waves = []
        for i in range(count):
            wave, state = self.step_blocks(
                params,
                codes[:, i * size : (i + 1) * size],
                self._cut_noise(noise, i * size, size),
                np.asarray(lengths, np.int32),
                conditioning,
                plan,
                np.float32(guidance),
                state,
                None,
            )
            waves.append(np.asarray(wave))
        return np.concatenate(waves, axis=1)[:, late : late + total * per_code]

    # --- stream ---------------------------------------------------------------------------------

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

    def init_stream(
        self,
        params: Params,
        xvector: np.ndarray,
        reference: np.ndarray,
        reference_lengths: np.ndarray | None = None,
        *,
        steps: int = STEPS,
        guidance: float = GUIDANCE,
        sway: float = SWAY,
        look_ahead: int | None = None,
    ) -> Stream:
        """Begin to decode B rows together.

        Args:
            xvector, reference: as for `decode_whole`.
            look_ahead: blocks that must be there before the block in front of them is finished.
                None for all that the attention reaches, which gives what `decode_whole` gives; a
                smaller number is sooner, but a block then does not hear what follows later.

        Raises:
            ConfigError, RequestError: see `block_codes` and `schedule`; a negative look_ahead.
        """
        whole = isinstance(look_ahead, int | np.integer) and not isinstance(look_ahead, bool)
        if look_ahead is not None and not (whole and look_ahead >= 0):
            raise RequestError(f"look_ahead is {look_ahead!r}: give 0 or more blocks, or None.")
        conditioning = self.voice(params, xvector, reference, reference_lengths)
        plan, rows = schedule(steps, sway), len(xvector)
        assert self.block_codes
        return Stream(
            schedule=plan,
            guidance=guidance,
            look_ahead=look_ahead,
            conditioning=conditioning,
            state=self.init_state(params, rows, plan.slopes, look_ahead),
            codes=np.zeros((rows, 0), np.int32),
            noise=None,
            taken=0,
            late=self.module.delay(plan.slopes, look_ahead),
            done=0,
            finished=False,
        )

    def step(
        self,
        params: Params,
        codes: np.ndarray,
        stream: Stream,
        noise: np.ndarray | jax.Array,
        *,
        final: bool = False,
    ) -> tuple[np.ndarray, Stream]:
        """Take in more codes and return the samples that they complete.

        Args:
            codes: [B, T] int, any T (0 is allowed).
            stream: not to be used again.
            noise: [B, T * repeats, M] for these codes; or random keys [B], always the same.
            final: no codes follow; everything that is left comes out.

        Returns:
            [B, n] float32, n of any size, and the stream after it.

        Raises:
            RequestError: the stream is finished already.
        """
        if stream.finished:
            raise RequestError("this stream has had its final codes: start a new one.")
        keyed = jnp.issubdtype(noise.dtype, jax.dtypes.prng_key)
        size, per_code = self.block_codes, self.config.samples_per_code
        taken = stream.taken + codes.shape[1]
        pending = np.concatenate([stream.codes, np.asarray(codes, np.int32)], axis=1)
        if not keyed:
            noise = np.asarray(noise, np.float32)
            if stream.noise is not None:
                noise = np.concatenate([stream.noise, noise], axis=1)
        count = pending.shape[1] // size
        if final:
            # Samples still to be made: those not given out yet, behind those that come too early.
            needed = stream.late + taken * per_code - stream.done
            count = -(-needed // (size * per_code))
            pending = _pad(pending, count * size)
            noise = self._pad_noise(noise, pending.shape[1])
        length = taken if final else self.module.unbounded
        lengths = np.full(len(pending), length, np.int32)
        state, waves = stream.state, [np.zeros((len(pending), 0), np.float32)]
        for i in range(count):
            wave, state = self.step_blocks(
                params,
                pending[:, i * size : (i + 1) * size],
                self._cut_noise(noise, i * size, size),
                lengths,
                stream.conditioning,
                stream.schedule,
                np.float32(stream.guidance),
                state,
                stream.look_ahead,
            )
            waves.append(np.asarray(wave))
        wave = np.concatenate(waves, axis=1)
        early = min(stream.late, wave.shape[1])
        wave = wave[:, early:][:, : taken * per_code - stream.done]
        rest = None if keyed else np.asarray(noise)[:, count * size * self.config.dit.repeats :]
        return wave, dataclasses.replace(
            stream,
            state=state,
            codes=pending[:, count * size :],
            noise=rest,
            taken=taken,
            late=stream.late - early,
            done=stream.done + wave.shape[1],
            finished=final,
        )

    def _pad_noise(self, noise: np.ndarray | jax.Array, codes: int) -> np.ndarray | jax.Array:
        """Noise filled up with zeros to so many codes; keys need none."""
        if jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
            return noise
        return _pad(np.asarray(noise, np.float32), codes * self.config.dit.repeats)

    def _cut_noise(
        self, noise: np.ndarray | jax.Array, start: int, codes: int
    ) -> np.ndarray | jax.Array:
        """The noise of some codes; keys know the position by themselves."""
        if jnp.issubdtype(noise.dtype, jax.dtypes.prng_key):
            return noise
        repeats = self.config.dit.repeats
        return noise[:, start * repeats : (start + codes) * repeats]


@functools.lru_cache(maxsize=32)
def decode_programs(config: Decoder25HzConfig) -> DecodePrograms:
    """The programs of a configuration; equal configurations share one instance and its cache."""
    return DecodePrograms(config)


def _pad(x: np.ndarray, steps: int) -> np.ndarray:
    """x [B, T, ...] filled up with zeros to so many steps."""
    return np.pad(x, ((0, 0), (0, steps - x.shape[1]), *((0, 0),) * (x.ndim - 2)))
