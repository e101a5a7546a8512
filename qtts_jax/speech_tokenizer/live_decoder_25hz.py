"""Streams 25 Hz codes from device memory through the decoder without a host round trip."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.functional import Params
from qtts_jax.models.tokenizer_25hz.flow import Conditioning
from qtts_jax.models.tokenizer_25hz.schedule import Schedule
from qtts_jax.speech_tokenizer.programs_25hz_decode import DecodePrograms


class DeviceStreamDecoder:
    """Decodes a batch whose rows end at frames that only the device knows.

    `host_stream_25hz` decodes codes that are on the host; this decodes them where generation leaves
    them.

    Args:
        programs, params: of the decoder.
        conditioning: of the voices.
        keys: [B] random keys of the noise.
        look_ahead: see `open_host_stream`.

    Attributes:
        delay: samples returned before the first one of the signal.
    """

    def __init__(
        self,
        programs: DecodePrograms,
        params: Params,
        conditioning: Conditioning,
        keys: jax.Array,
        schedule: Schedule,
        guidance: float,
        look_ahead: int | None,
    ) -> None:
        self._programs, self._params = programs, params
        self._settings = (conditioning, schedule, jnp.float32(guidance))
        self._keys, self._look_ahead = keys, look_ahead
        batch, slopes = keys.shape[0], schedule.slopes
        self.delay = programs.module.delay(slopes, look_ahead)
        self._state = programs.init_state(params, batch, slopes, look_ahead)
        self._waiting: Any = jnp.zeros((batch, 0), jnp.int32)
        self._count, self._ended = jnp.zeros((batch,), jnp.int32), jnp.zeros((batch,), bool)

    def push(self, codes: jax.Array | np.ndarray) -> jax.Array:
        """Decode more codes: the samples of the blocks that they complete.

        Args:
            codes: [B, n] int32, any n; -1 after the end of a row.

        Returns:
            [B, m] float32, m a multiple (0 included) of a block's samples.
        """
        size = self._programs.block_codes
        line = jnp.concatenate([self._waiting, codes], axis=1)  # [B, waiting + n]
        waves = [jnp.zeros((line.shape[0], 0), jnp.float32)]
        for start in range(0, line.shape[1] - size + 1, size):
            block, lengths, self._count, self._ended = _track(
                line[:, start : start + size],
                self._count,
                self._ended,
                self._programs.module.unbounded,
            )
            wave, self._state = self._programs.step_blocks(
                self._params,
                block,
                self._keys,
                lengths,
                *self._settings,
                self._state,
                self._look_ahead,
            )
            waves.append(wave)
        self._waiting = line[:, line.shape[1] // size * size :]
        return waves[1] if len(waves) == 2 else jnp.concatenate(waves, axis=1)

    def finish(self) -> jax.Array:
        """The samples of one more block, after the end of all rows."""
        missing = self._programs.block_codes - self._waiting.shape[1]
        return self.push(jnp.full((self._waiting.shape[0], missing), -1, jnp.int32))


@jax.jit
def _track(
    codes: jax.Array, count: jax.Array, ended: jax.Array, unbounded: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Codes [B, n] without -1, the lengths [B] of rows as far as known, `count` and `ended`."""
    real = codes >= 0
    count, ended = count + jnp.sum(real, axis=1), ended | ~jnp.all(real, axis=1)
    return jnp.maximum(codes, 0), jnp.where(ended, count, unbounded), count, ended
