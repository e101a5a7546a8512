"""Library of the draft benchmark: generated frames with all that the code predictor had for each.

A frame's residual codes depend on the talker's hidden state, on the embedding of codebook 0 and on
the random keys of the frame; with these three the predictor can be run again in other ways.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import command
from qtts_jax.functional import Params, abstract, bind, matmul_precision
from qtts_jax.generation.frame_parts import frame_keys
from qtts_jax.generation.frame_step import frame_step
from qtts_jax.generation.sampling import SamplingPlan
from qtts_jax.generation.session import Session
from qtts_jax.generation.state import DecodeInputs, GenerationState
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.tts.qwen_tts import QwenTTS
from qtts_jax.tts.voices import CustomVoice


class PredictorFrames(NamedTuple):
    """Frames of several utterances, one after the other.

    Attributes:
        hidden, first: [N, D talker], inputs of the predictor.
        keys: [N] random keys of the frames.
        codes: [N, Q-1] int32, the residual codes that the plain loop sampled.
    """

    hidden: jax.Array
    first: jax.Array
    keys: jax.Array
    codes: jax.Array


def generated_frames(
    tts: QwenTTS, texts: Sequence[str], sampling: Mapping[str, Any], frames: int, batch: int
) -> PredictorFrames:
    """The frames of spoken texts, the preset voices in turns.

    Args:
        sampling: settings of `SamplingParams` instead of the checkpoint's.
        frames: most frames of an utterance.
        batch: utterances that are generated together.
    """
    voices, given = tts.supported_speakers, {**sampling, "max_new_tokens": frames + 1}
    requests = [
        tts.prepare(CustomVoice(text, voices[i % len(voices)], "english", seed=i, sampling=given))
        for i, text in enumerate(texts)
    ]
    parts = []
    for at in range(0, len(requests), batch):
        session = Session(tts.config, tts.params, requests[at : at + batch])
        session.grow_cache(frames)
        hidden, keys, codes = _frames(
            tts.params,
            session.conditions,
            session.state,
            config=tts.config,
            methods=session.methods,
            frames=frames,
        )  # [T, B, D], [T, B], [T, B, Q]
        real = codes[..., 0] >= 0  # [T, B]
        parts.append((hidden[real], keys[real], codes[real]))
    hidden, keys, codes = (jnp.concatenate(part) for part in zip(*parts, strict=True))
    model = bind(abstract(TTSModel, tts.config)[0], tts.params)
    return PredictorFrames(hidden, model.talker.embed_codec(codes[:, 0]), keys, codes[:, 1:])


@partial(jax.jit, static_argnames=("config", "methods", "frames"))
def _frames(
    params: Params,
    conditions: DecodeInputs,
    state: GenerationState,
    *,
    config: Any,
    methods: SamplingPlan,
    frames: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hidden states [T, B, D], keys [T, B] and codes [T, B, Q] of the next frames."""
    with matmul_precision(params):
        model = bind(abstract(TTSModel, config)[0], params)

        def body(state: GenerationState, _: None) -> tuple[GenerationState, Any]:
            keys = frame_keys(conditions, state.frame)
            codes, new = frame_step(model, methods, conditions, state)
            return new, (state.hidden, keys, codes)

        out: tuple[jax.Array, jax.Array, jax.Array]
        out = jax.lax.scan(body, state, None, length=frames)[1]
        return out


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.bench.draft_acceptance"))
