"""Adds a preset speaker to a cloning model: one row of the codec embedding.

This is the task of the official fine-tuning script. The mean x-vector of a speaker becomes the
embedding of a free codec id, which stands where the x-vector stood in the prompts of the Base
model; so the new speaker sounds as the clone does before any training, and training (with
`TalkerTask` and layouts with the speaker's name) starts from there.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.tts import TalkerConfig, TTSConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params


def free_codec_id(c: TalkerConfig) -> int:
    """The highest id of the reserved part of the codec vocabulary that nothing uses.

    Raises:
        ConfigError: all are used.
    """
    used = {c.pad_id, c.bos_id, c.eos_id, c.think_id, c.nothink_id, c.think_bos_id, c.think_eos_id}
    used |= {i for _, i in (*c.languages, *c.speakers)}
    for i in range(c.vocab_size - 1, c.codebook_size - 1, -1):
        if i not in used:
            return i
    raise ConfigError("every reserved codec id is in use; remove a speaker first.")


def add_speaker(
    config: TTSConfig, params: Params, name: str, embeddings: np.ndarray
) -> tuple[TTSConfig, Params]:
    """A CustomVoice model with one more preset speaker.

    Args:
        config: of a Base or CustomVoice model.
        params: of `TTSModel`; not changed.
        name: of the speaker, any case.
        embeddings: [N, D] float32 x-vectors of recordings of the speaker, or one [D].

    Returns:
        the configuration, of type "custom_voice" and without a speaker encoder, and parameters
        that share all arrays but the codec embedding with `params`.

    Raises:
        ConfigError: the name is empty or taken, the vectors have another width or are not finite,
            or no codec id is free.
    """
    talker, name = config.talker, name.strip().lower()
    if not name or name in dict(talker.speakers):
        raise ConfigError(f"the name {name!r} is empty or taken; choose another speaker name.")
    vectors = np.atleast_2d(np.asarray(embeddings, np.float32))
    width = talker.transformer.width
    if vectors.ndim != 2 or vectors.shape[1] != width or not np.isfinite(vectors).all():
        raise ConfigError(
            f"a speaker needs finite x-vectors of width {width}, not {list(vectors.shape)}; make "
            "them with the speaker encoder of this model."
        )
    row = free_codec_id(talker)
    table = params["talker"]["codec_embedding"]["table"]
    table = table.at[row].set(jnp.asarray(vectors.mean(axis=0), table.dtype))
    new = {part: tree for part, tree in params.items() if part != "speaker_encoder"}
    new["talker"] = params["talker"] | {"codec_embedding": {"table": table}}
    new_config = replace(
        config,
        model_type="custom_voice",
        further_types=tuple(t for t in config.types if t not in ("custom_voice", "base")),
        talker=replace(talker, speakers=(*talker.speakers, (name, row))),
        speaker_encoder=None,
    )
    return new_config, new
