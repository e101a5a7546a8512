"""Inputs and targets of the code predictor in a batch, in the order that its pattern sets."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.generation.delay import delayed


class PredictorTargets(NamedTuple):
    """Targets of the code predictor at S steps of the talker from the first frame on.

    Attributes:
        first: [B, S] int32, codebook 0 that is read at each step.
        codes: [B, S, Q-1] int32, the residual codes predicted there.
        real: [B, S, Q-1] bool, where there is a target.
        steps: [B] int32, steps with targets.
    """

    first: jax.Array
    codes: jax.Array
    real: jax.Array
    steps: jax.Array


def predictor_targets(config: TTSConfig, batch: dict[str, jax.Array]) -> PredictorTargets:
    """Targets of a batch of `talker_examples.collate`.

    In the delay pattern a step has the codes of Q-1 frames, and Q-1 further steps complete the last
    ones. A row that is cut before the end of its speech has no such steps.
    """
    codes, frames, lag = batch["codes"], batch["frames"], config.talker.lag
    if lag:
        codes = jnp.pad(codes, ((0, 0), (0, lag), (0, 0)))  # [B, S, Q]
    step = jnp.arange(codes.shape[1])
    is_frame = step < frames[:, None]  # [B, S]
    first, rest = codes[..., 0], codes[..., 1:]
    if not lag:
        return PredictorTargets(first, rest, _each(is_frame, rest), frames)
    first = jnp.where(is_frame, first, config.talker.eos_id)
    rest = delayed(jnp.where(is_frame[..., None], rest, -1))
    real = (rest >= 0) & (is_frame | batch["ends"][:, None])[..., None]
    steps = frames + lag * batch["ends"]
    return PredictorTargets(first, jnp.maximum(rest, 0), real, steps)


def delayed_batch(config: TTSConfig, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A batch whose input frames have the delay pattern, with Q-1 more positions.

    After the last frame of a row come the remaining residual codes, beside the end of speech and
    tts_pad, as `generation/delay.py` feeds them back.
    """
    lag = config.talker.lag

    def longer(name: str, fill: int) -> jax.Array:
        x = batch[name]
        wide = ((0, 0), (0, lag), *((0, 0),) * (x.ndim - 2))
        return jnp.pad(x, wide, constant_values=fill)

    text, codec, residual = (longer(name, -1) for name in ("text", "codec", "residual"))
    position = jnp.arange(text.shape[1]) - batch["lengths"][:, None]
    after = (position >= 0) & (position < lag)
    return batch | {
        "text": jnp.where(after, config.tts_pad_id, text),
        "codec": jnp.where(after, config.talker.eos_id, codec),
        "residual": delayed(residual),
        "speaker": longer("speaker", 0),
    }


def _each(mask: jax.Array, codes: jax.Array) -> jax.Array:
    return jnp.broadcast_to(mask[..., None], codes.shape)
