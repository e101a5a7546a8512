"""Outputs of the talker and the code predictor when every input frame is the recorded one."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import ConfigError
from qtts_jax.generation.frame_step import embed_prompt
from qtts_jax.generation.state import PromptBatch
from qtts_jax.layers.embedding_lookup import lookup_codebooks
from qtts_jax.models.code_predictor import CodePredictor
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.talker.full_sequence import AttentionKernel, Remat, run_stack
from qtts_jax.training.talker.mixed_einsum import mixed_einsum


def forced_hidden(
    model: TTSModel,
    batch: dict[str, jax.Array],
    *,
    remat: Remat = "none",
    attention: AttentionKernel = "auto",
) -> jax.Array:
    """The talker's outputs [B, T, D] after the final norm at every position of a batch."""
    prompt = PromptBatch(**{name: batch[name] for name in PromptBatch._fields})
    if "mel" in batch:
        encoder = model.speaker_encoder
        if encoder is None:
            raise ConfigError("the batch has mels, but the model has no speaker encoder.")
        with jax.named_scope("speaker_encoder"):
            spoken = encoder(batch["mel"], batch["mel_frames"])
        given = prompt.embedding.astype(spoken.dtype)
        prompt = prompt._replace(embedding=jnp.where(batch["has_mel"][:, None], spoken, given))
    x = embed_prompt(model, prompt)
    return run_stack(model.talker.transformer, x, remat=remat, attention=attention)


def noisy_frames(
    config: TTSConfig, batch: dict[str, jax.Array], key: jax.Array, part: float
) -> dict[str, jax.Array]:
    """A batch whose inputs have random codes in place of some frames; its targets are unchanged.

    Args:
        part: maximum fraction of a row's frames; the fraction of each row is uniform below it.
    """
    rows, positions = batch["codec"].shape
    of_row, of_frame, first, rest = jax.random.split(key, 4)
    frame = jnp.arange(positions) - batch["start"][:, None] - 1
    inside = (frame >= 0) & (frame < batch["frames"][:, None])
    share = part * jax.random.uniform(of_row, (rows, 1))
    chosen = inside & (jax.random.uniform(of_frame, (rows, positions)) < share)
    shape, talker = batch["residual"].shape, config.talker
    codes = jax.random.randint(first, chosen.shape, 0, talker.codebook_size)
    noisy = batch | {"codec": jnp.where(chosen, codes, batch["codec"])}
    if talker.code_predictor is not None:
        codes = jax.random.randint(rest, shape, 0, talker.code_predictor.vocab_size)
        noisy["residual"] = jnp.where(chosen[..., None], codes, batch["residual"])
    return noisy


def forced_frames(
    hidden: jax.Array, batch: dict[str, jax.Array], steps: int | None = None
) -> jax.Array:
    """The outputs [B, S, D] that predict each frame, gathered from hidden [B, T, D].

    Args:
        steps: outputs from the first frame on; None for the frames of the longest row.
    """
    at = batch["start"][:, None] + jnp.arange(steps or batch["codes"].shape[1])
    row = jnp.arange(len(hidden))[:, None]
    # `unique_indices` lets XLA avoid atomic adds in the gradient.
    return hidden.at[row, at].get(mode="fill", fill_value=0, unique_indices=True)


def first_targets(batch: dict[str, jax.Array], positions: int, eos: int) -> jax.Array:
    """Codebook 0 of the next frame, or end of speech, at every position; -1 for none: [B, T]."""
    frame = jnp.arange(positions) - batch["start"][:, None]
    frames, codes = batch["frames"][:, None], batch["codes"][..., 0]
    at = jnp.clip(frame, 0, codes.shape[1] - 1)
    inside = (frame >= 0) & (frame < frames)
    end = (frame == frames) & batch["ends"][:, None]
    code = jnp.take_along_axis(codes, at, axis=1)
    return jnp.where(inside, code, jnp.where(end, eos, -1))


def predictor_logits(
    predictor: CodePredictor,
    hidden: jax.Array,
    first: jax.Array,
    codes: jax.Array,
    remat: Remat = "none",
    attention: AttentionKernel = "auto",
) -> jax.Array:
    """`CodePredictor.teacher_forced` for many frames and gradients.

    Args:
        hidden, first: [B, D talker], outputs that predict the frames, and their embedded code 0.
        codes: [B, Q-1] int.
        remat, attention: see `run_stack`.

    Returns:
        [B, Q-1, V] float32.
    """
    inputs = [hidden[:, None], first[:, None]]
    sequential = predictor.config.pattern == "sequential"
    if sequential:
        tables = predictor.embeddings[...][: codes.shape[1] - 1]
        inputs.append(lookup_codebooks(tables, codes[:, :-1]))
    x = jnp.concatenate(inputs, axis=1)  # [B, Q or 2, D talker]
    if predictor.input_projection is not None:
        x = predictor.input_projection(x)
    y = run_stack(predictor.transformer, x, remat=remat, attention=attention)[:, 1:]
    if sequential:
        return mixed_einsum("bqd,qvd->bqv", y, predictor.heads[...])
    return mixed_einsum("bd,qvd->bqv", y[:, 0], predictor.heads[...])
