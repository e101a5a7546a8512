"""Decoder of the 25 Hz tokenizer: codes and a voice to samples."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tokenizer_25hz_decoder import Decoder25HzConfig
from qtts_jax.layers.stream_position import Span
from qtts_jax.models.tokenizer_25hz.flow import Conditioning, Flow, FlowState
from qtts_jax.models.tokenizer_25hz.schedule import Schedule
from qtts_jax.models.tokenizer_25hz.vocoder import Vocoder, VocoderState


class Decoder25HzState(NamedTuple):
    """State of both halves between two steps."""

    flow: FlowState
    vocoder: VocoderState


class Decoder25Hz(nnx.Module):
    """Flow matching to a mel spectrogram, then the vocoder (`Qwen3TTSTokenizerV1Decoder`)."""

    def __init__(self, config: Decoder25HzConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.flow = Flow(config.dit, rngs=rngs)
        self.vocoder = Vocoder(config.vocoder, rngs=rngs)

    def __call__(
        self,
        codes: jax.Array,
        noise: jax.Array,
        conditioning: Conditioning,
        schedule: Schedule,
        guidance: jax.Array | float,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        """All codes to samples [B, T * samples_per_code]; arguments as for `Flow`.

        Samples behind a row's end are undefined.
        """
        with jax.named_scope("flow"):
            mel = self.flow(codes, noise, conditioning, schedule, guidance, lengths)
        frames = None if lengths is None else lengths * self.config.dit.repeats
        with jax.named_scope("vocoder"):
            return self.vocoder(mel, frames)

    def delay(self, slopes: int, look_ahead: int | None) -> int:
        """Samples that the output of `step` is late."""
        blocks = self.flow.delay_blocks(slopes, look_ahead)
        frames = blocks * self.config.dit.block
        return frames * self.config.vocoder.samples_per_frame + self.vocoder.delay

    def init_state(self, batch: int, slopes: int, look_ahead: int | None) -> Decoder25HzState:
        """The state before the first code; arguments as for `Flow.init_state`."""
        return Decoder25HzState(
            self.flow.init_state(batch, slopes, look_ahead),
            self.vocoder.init_state(batch, self.flow.input.kernel[...].dtype),
        )

    def step(
        self,
        codes: jax.Array,
        noise: jax.Array,
        lengths: jax.Array,
        conditioning: Conditioning,
        schedule: Schedule,
        guidance: jax.Array | float,
        state: Decoder25HzState,
        look_ahead: int | None,
    ) -> tuple[jax.Array, Decoder25HzState]:
        """Consume N blocks of codes.

        Args:
            codes: [B, T] int, T codes that fill whole blocks.
            noise: [B, T * repeats, M].
            lengths: [B] int32, codes of the whole row, or `unbounded` while unknown.

        Returns:
            samples [B, T * samples_per_code], `delay` late, and the state.
        """
        c = self.config
        end = lengths.astype(jnp.int32) * c.dit.repeats
        late = self.flow.delay_blocks(schedule.slopes, look_ahead) * c.dit.block
        mel_span = Span(state.flow.position - late, end)
        with jax.named_scope("flow"):
            frames = jnp.repeat(codes, c.dit.repeats, axis=1)  # [B, T * repeats]
            mel, flow = self.flow.step(
                frames, noise, end, conditioning, schedule, guidance, state.flow, look_ahead
            )  # [B, T * repeats, M]
        with jax.named_scope("vocoder"):
            samples, vocoder = self.vocoder.step(mel, state.vocoder, mel_span)
        return samples, Decoder25HzState(flow, vocoder)

    @property
    def unbounded(self) -> int:
        """A number of codes that stands for an unknown length: its samples still fit in int32."""
        return (2**31 - 1) // (2 * self.config.samples_per_code)
