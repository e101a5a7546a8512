"""Decodes the codes of one 25 Hz utterance while they arrive on the host."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from qtts_jax.functional import Params
from qtts_jax.speech_tokenizer.host_stream_25hz import open_host_stream, step_host_stream
from qtts_jax.speech_tokenizer.inputs_25hz import check_noise
from qtts_jax.speech_tokenizer.programs_25hz_decode import DecodePrograms
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice


class HostStreamDecoder:
    """The samples of one row, a few blocks later than its codes.

    Args:
        programs, params: of the decoder; on a mesh every device works on the one row.
        voice: checked.
        noise: random keys, one for each device, or [frames, M] for all codes to come.
        steps, guidance, look_ahead: see `open_host_stream`.
    """

    def __init__(
        self,
        programs: DecodePrograms,
        params: Params,
        voice: ReferenceVoice,
        noise: np.ndarray | jax.Array,
        *,
        steps: int,
        guidance: float,
        look_ahead: int | None,
    ) -> None:
        self._programs, self._params, self._noise = programs, params, noise
        self._received = 0
        self._stream = open_host_stream(
            programs,
            params,
            self._for_each_device(voice.xvector),
            self._for_each_device(voice.ref_mel),
            steps=steps,
            guidance=guidance,
            look_ahead=look_ahead,
        )

    def push(self, codes: np.ndarray) -> np.ndarray:
        """The samples float32 [n] of the blocks that codes int32 [T] complete; n may be 0."""
        return self._step(codes, final=False)

    def finish(self) -> np.ndarray:
        """The remaining samples float32 [n]; no codes follow."""
        return self._step(np.zeros((0,), np.int32), final=True)

    def _step(self, codes: np.ndarray, final: bool) -> np.ndarray:
        start, self._received = self._received, self._received + len(codes)
        wave, self._stream = step_host_stream(
            self._programs,
            self._params,
            self._for_each_device(codes),
            self._stream,
            self._noise_between(start, self._received),
            final=final,
        )
        return wave[0]

    def _noise_between(self, start: int, stop: int) -> Any:
        """The noise [B, frames, M] of a range of codes, or the random keys."""
        if isinstance(self._noise, jax.Array):
            return self._noise
        dit = self._programs.config.dit
        check_noise(self._noise, stop, dit)
        return self._for_each_device(self._noise[start * dit.repeats : stop * dit.repeats])

    def _for_each_device(self, x: np.ndarray) -> np.ndarray:
        """x [...] as [B, ...], the same for each device."""
        return np.repeat(x[None], self._programs.devices, 0)
