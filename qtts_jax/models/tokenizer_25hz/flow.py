"""Codes to mel frames: flow matching with classifier-free guidance.

An ordinary differential equation takes noise to a mel spectrogram; the DiT predicts its slope at
every time step (Lipman et al. 2023, arXiv:2210.02747; upstream `sample` of
`Qwen3TTSTokenizerV1DecoderDiTModel`). A slope at one block depends on the blocks that the layers
look back and ahead to, so after n slopes a block depends on n times as many.

So there are two ways to stream:

- exact: the slopes are a chain in which each is `ahead` blocks later than the one before. A step
  takes new blocks through the whole chain. Every slope of every block is computed once, and the
  result is that of the whole sequence.
- limited: a block is finished when only `look_ahead` later blocks are there, as the official model
  is meant to be served. The slopes of the later blocks are computed without their own future and
  again when it has come.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from qtts_jax.configs.tokenizer_25hz_decoder import DiTConfig
from qtts_jax.layers.linear import Embedding, Linear
from qtts_jax.layers.stream_position import Span, delay, full_span
from qtts_jax.models.speaker_encoder import SpeakerEncoder, min_frames
from qtts_jax.models.tokenizer_25hz.schedule import Schedule
from qtts_jax.modules.dit import DiT, DiTState, Modulation

Tree = TypeVar("Tree")

# Guided and unguided rows as one batch, and back; and slopes before rows, for `jax.lax.scan` (the
# exchange of two axes is its own inverse).
MERGE, SPLIT = "b guided ... -> (b guided) ...", "(b guided) ... -> b guided ..."
SLOPES_FIRST = "b n ... -> n b ..."


class Conditioning(NamedTuple):
    """Contribution of a voice to every frame, after the input projection and with its bias.

    Attributes:
        voice: [B, D], x-vector and reference mel.
        unguided: [B, D], neither of them and the empty code, for the unconditional half.
    """

    voice: jax.Array
    unguided: jax.Array


class FlowState(NamedTuple):
    """State of a stream between two steps; N slopes, C frames of look-ahead.

    Attributes:
        position: [B] int32, mel frames consumed so far.
        codes: [B, C] int32, codes of the newest frames.
        frames: exact: [B, N, ahead * block, M] float32, the newest frames in front of every slope;
            limited: [B, C, M] float32, the noise of the newest frames.
        slopes: state of every DiT layer, [B, N, 2, ...]: for every slope, guided and unguided.
    """

    position: jax.Array
    codes: jax.Array
    frames: jax.Array
    slopes: DiTState


class Flow(nnx.Module):
    """The conditioned DiT and the solution of its equation.

    The input projection is linear in noise, voice and code, so that only its part for the noisy
    frames is left to the loop over time steps; the parameter is [D, M + E + C + X] for frames,
    reference, code and x-vector.
    """

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs) -> None:
        self.config = c = config
        self.code_embedding = Embedding(c.code_entries + 1, c.code_width, std=1.0, rngs=rngs)
        self.reference_encoder = SpeakerEncoder(c.reference_encoder, rngs=rngs)
        self.parts = np.cumsum(
            [c.n_mels, c.reference_encoder.embedding_dim, c.code_width, c.xvector_width]
        ).tolist()
        self.input = Linear(
            (self.parts[-1],), (c.width,), (None,), ("embed",), bias=True, rngs=rngs
        )
        self.dit = DiT(c, rngs=rngs)

    # --- conditions -----------------------------------------------------------------------------

    def condition(
        self, xvector: jax.Array, reference: jax.Array, lengths: jax.Array | None = None
    ) -> Conditioning:
        """Project the x-vector and the reference mel of a voice.

        Args:
            xvector: [B, X].
            reference: [B, T, M] log-mel of the reference.
            lengths: [B], its real frames; None for all.

        Raises:
            AudioError: the reference is too short for the reference encoder.
        """
        c = self.config
        weights = self.input.kernel[...]
        bias = 0 if self.input.bias is None else self.input.bias[...]
        frames, embedding, code, _ = self.parts
        to_reference, to_code, to_xvector = (
            weights[:, frames:embedding],
            weights[:, embedding:code],
            weights[:, code:],
        )
        dtype = weights.dtype
        # Zeros stay the same in every frame, so their number does not matter.
        nothing = jnp.zeros((1, min_frames(c.reference_encoder), c.n_mels), dtype)
        empty_code = self.code_embedding(jnp.zeros((1,), jnp.int32))
        unguided = self.reference_encoder(nothing) @ to_reference.T + empty_code @ to_code.T + bias
        voice = self.reference_encoder(reference, lengths) @ to_reference.T
        voice = voice + xvector.astype(dtype) @ to_xvector.T + bias
        return Conditioning(voice, jnp.broadcast_to(unguided, voice.shape))

    def embed_codes(self, codes: jax.Array) -> jax.Array:
        """Codes [B, T] -> their part of the projected input [B, T, D]."""
        weights = self.input.kernel[...][:, self.parts[1] : self.parts[2]]
        return jnp.einsum("bti,oi->bto", self.code_embedding(codes), weights)

    # --- slopes ---------------------------------------------------------------------------------

    def inputs(self, x: jax.Array, codes: jax.Array, conditioning: Conditioning) -> jax.Array:
        """Noisy frames [B, T, M] and projected codes [B, T, D] -> [B, 2, T, D], guided first."""
        weights = self.input.kernel[...][:, : self.parts[0]]
        x = jnp.einsum("bti,oi->bto", x.astype(weights.dtype), weights)
        guided = x + (codes + conditioning.voice[:, None])
        return jnp.stack([guided, x + conditioning.unguided[:, None]], axis=1)

    def slope(
        self,
        x: jax.Array,
        codes: jax.Array,
        conditioning: Conditioning,
        guidance: jax.Array,
        modulation: Modulation,
        state: DiTState,
        span: Span,
        advance: int | None = None,
    ) -> tuple[jax.Array, DiTState]:
        """Guided slope [B, T, M] float32 of frames x [B, T, M]; see `DiT.step`.

        Args:
            state: leaves [B, 2, ...], with and without the conditions.
        """
        rows = self.inputs(x, codes, conditioning)  # [B, 2, T, D]
        both = Span(jnp.repeat(span.position, 2), jnp.repeat(span.end, 2))
        y, state = self.dit.step(
            _rearrange(rows, MERGE), modulation, _rearrange(state, MERGE), both, advance
        )
        guided, unguided = jnp.unstack(_rearrange(y, SPLIT).astype(jnp.float32), axis=1)
        return guided + (guided - unguided) * guidance, _rearrange(state, SPLIT)

    def _modulations(self, schedule: Schedule) -> Modulation:
        return self.dit.modulations(jnp.asarray(schedule.features))

    # --- whole sequence -------------------------------------------------------------------------

    def __call__(
        self,
        codes: jax.Array,
        noise: jax.Array,
        conditioning: Conditioning,
        schedule: Schedule,
        guidance: jax.Array | float,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        """Solve for all frames at once.

        Args:
            codes: [B, T] int.
            noise: [B, T * repeats, M].
            guidance: how far to go beyond the conditioned slope; 0 for no guidance.
            lengths: [B], real codes of each row; None for all. A row's mel is what it is alone.

        Returns:
            mel [B, T * repeats, M] float32; frames behind a row's end are undefined.
        """
        c = self.config
        batch, frames, _ = noise.shape
        padded = -(-frames // c.block) * c.block
        ends = None if lengths is None else lengths * c.repeats
        span = full_span(batch, frames, ends)
        embedded = jnp.repeat(self.embed_codes(codes), c.repeats, axis=1)
        x, embedded = (
            jnp.pad(t, ((0, 0), (0, padded - frames), (0, 0)))
            for t in (noise.astype(jnp.float32), embedded)
        )
        fresh = self.dit.init_state(2 * batch, embedded.dtype, delayed=False)
        fresh = _rearrange(fresh, SPLIT)  # [B, 2, ...]
        guidance = jnp.asarray(guidance, jnp.float32)

        def advance(x: jax.Array, each: tuple[Modulation, jax.Array]) -> tuple[jax.Array, None]:
            modulation, size = each
            with jax.named_scope("ode_step"):
                slope, _ = self.slope(x, embedded, conditioning, guidance, modulation, fresh, span)
                return x + size * slope, None  # [B, T, M]

        each = (self._modulations(schedule), jnp.asarray(schedule.sizes))
        return jax.lax.scan(advance, x, each)[0][:, :frames]

    # --- stream ---------------------------------------------------------------------------------

    def delay_blocks(self, slopes: int, look_ahead: int | None) -> int:
        """Blocks by which the output of `step` is late."""
        exact = slopes * self.dit.ahead
        return exact if look_ahead is None else min(look_ahead, exact)

    def init_state(self, batch: int, slopes: int, look_ahead: int | None) -> FlowState:
        """The state before the first frame.

        Args:
            slopes: network evaluations of the schedule.
            look_ahead: None for an exact stream, else the later blocks that a block may see.
        """
        c, exact = self.config, look_ahead is None
        waiting = self.delay_blocks(slopes, look_ahead) * c.block
        dtype = self.input.kernel[...].dtype
        layers = self.dit.init_state(batch, dtype, delayed=exact)
        shape = (batch, slopes, self.dit.ahead * c.block) if exact else (batch, waiting)
        return FlowState(
            jnp.zeros((batch,), jnp.int32),
            jnp.zeros((batch, waiting), jnp.int32),
            jnp.zeros((*shape, c.n_mels), jnp.float32),
            jax.tree.map(lambda t: jnp.zeros((batch, slopes, 2, *t.shape[1:]), t.dtype), layers),
        )

    def step(
        self,
        codes: jax.Array,
        noise: jax.Array,
        end: jax.Array,
        conditioning: Conditioning,
        schedule: Schedule,
        guidance: jax.Array | float,
        state: FlowState,
        look_ahead: int | None,
    ) -> tuple[jax.Array, FlowState]:
        """Consume N blocks.

        Args:
            codes: [B, N * block] int, the code of every frame (each repeated `repeats` times).
            noise: [B, N * block, M].
            end: [B] int32, frames of the whole row; any larger number while unknown. After it
                codes and noise may be anything finite.
            look_ahead: as given to `init_state`.

        Returns:
            mel [B, N * block, M] float32, `delay_blocks` late, and the state.
        """
        guidance = jnp.asarray(guidance, jnp.float32)
        each = (self._modulations(schedule), jnp.asarray(schedule.sizes))
        span = Span(state.position, end)
        noise = noise.astype(jnp.float32)
        if look_ahead is None:
            return self._exact(codes, noise, span, conditioning, each, guidance, state)
        return self._limited(codes, noise, span, conditioning, each, guidance, state)

    def _exact(
        self,
        codes: jax.Array,
        noise: jax.Array,
        span: Span,
        conditioning: Conditioning,
        each: tuple[Modulation, jax.Array],
        guidance: jax.Array,
        state: FlowState,
    ) -> tuple[jax.Array, FlowState]:
        """The chain of slopes, each `ahead` blocks later than the one before."""
        slopes, late = each[1].shape[0], self.dit.ahead * self.config.block
        line = jnp.concatenate([state.codes, codes], axis=1)  # [B, C + T]
        embedded = self._embed_frames(line)  # [B, C + T, D]

        def advance(
            x: jax.Array, each: tuple[jax.Array, Modulation, jax.Array, jax.Array, DiTState]
        ) -> tuple[jax.Array, tuple[jax.Array, DiTState]]:
            i, modulation, size, frames, layers = each
            # Codes of the frames `i * late` before the newest.
            start = (slopes - i) * late
            here = jax.lax.dynamic_slice_in_dim(embedded, start, x.shape[1], axis=1)  # [B, T, D]
            at = span.delayed(i * late)
            with jax.named_scope("ode_step"):
                slope, layers = self.slope(x, here, conditioning, guidance, modulation, layers, at)
                x, frames = delay(x, frames)  # [B, T, M], [B, ahead * block, M]
                return x + size * slope, (frames, layers)

        memory = _rearrange((state.frames, state.slopes), SLOPES_FIRST)
        x, memory = jax.lax.scan(advance, noise, (jnp.arange(slopes), *each, *memory))
        frames, layers = _rearrange(memory, SLOPES_FIRST)
        position = state.position + codes.shape[1]
        return x, FlowState(position, line[:, codes.shape[1] :], frames, layers)

    def _limited(
        self,
        codes: jax.Array,
        noise: jax.Array,
        span: Span,
        conditioning: Conditioning,
        each: tuple[Modulation, jax.Array],
        guidance: jax.Array,
        state: FlowState,
    ) -> tuple[jax.Array, FlowState]:
        """One block after the other, each solved together with the blocks it may see."""
        block, waiting = self.config.block, state.codes.shape[1]

        def finish(state: FlowState, new: tuple[jax.Array, ...]) -> tuple[FlowState, jax.Array]:
            line = jnp.concatenate([state.codes, new[0]], axis=1)  # [B, C + block]
            frames = jnp.concatenate([state.frames, new[1]], axis=1)  # [B, C + block, M]
            embedded = self._embed_frames(line)  # [B, C + block, D]
            at = Span(state.position - waiting, span.end)

            def advance(
                x: jax.Array, each: tuple[Modulation, jax.Array, DiTState]
            ) -> tuple[jax.Array, DiTState]:
                modulation, size, layers = each
                with jax.named_scope("ode_step"):
                    slope, layers = self.slope(
                        x, embedded, conditioning, guidance, modulation, layers, at, 1
                    )
                    return x + size * slope, layers

            x, layers = jax.lax.scan(
                advance, frames, (*each, _rearrange(state.slopes, SLOPES_FIRST))
            )
            position = state.position + block
            state = FlowState(
                position, line[:, block:], frames[:, block:], _rearrange(layers, SLOPES_FIRST)
            )
            return state, x[:, :block]

        count = codes.shape[1] // block
        if count == 1:
            state, mel = finish(state, (codes, noise))
            return mel, state
        blocks = "b (n t) ... -> n b t ..."
        new = tuple(rearrange(x, blocks, n=count) for x in (codes, noise))
        state, mel = jax.lax.scan(finish, state, new)  # [N, B, block, M]
        return rearrange(mel, "n b t m -> b (n t) m"), state

    def _embed_frames(self, codes: jax.Array) -> jax.Array:
        """The code of every frame [B, T] -> projected codes [B, T, D].

        Each code is projected once: in a stream a block holds an integer number of codes.
        """
        repeats = self.config.repeats
        return jnp.repeat(self.embed_codes(codes[:, ::repeats]), repeats, axis=1)


def _rearrange(tree: Tree, pattern: str) -> Tree:
    """`einops.rearrange` of every leaf; `guided` is the axis of size 2 with and without voice."""
    sizes = {"guided": 2} if "guided" in pattern else {}
    leaves: Tree = jax.tree.map(lambda t: rearrange(t, pattern, **sizes), tree)
    return leaves
