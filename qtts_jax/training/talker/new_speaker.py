"""A preset speaker for a cloning model: a row of the codec embedding, and a checkpoint with it.

This is the task of the official fine-tuning script. The mean x-vector of a speaker becomes the
embedding of a free codec id, which stands where the x-vector stood in the prompts of the Base
model; so the new speaker sounds as the clone does before any training, and training (with
`TalkerTask` and layouts with the speaker's name) starts from there.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.configs.tts import TalkerConfig, TTSConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.io.checkpoint import CONFIG, MARKER, PARAMS, save_params, stored_params


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


def export_checkpoint(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    config: TTSConfig,
    params: Params,
    *,
    overwrite: bool = False,
) -> None:
    """Write a trained model as a checkpoint folder, all or nothing.

    Text files, generation settings and the speech tokenizer are those of `source`, the checkpoint
    that training began with, and so is the floating-point type of the parameters.

    Raises:
        CheckpointError: `source` is no checkpoint, or `destination` exists, cannot be written, is
            `source` or holds it.
    """
    source = Path(source)
    dtype = next(iter(stored_params(source).values())).dtype
    with new_directory(Path(destination), overwrite, [source]) as partial:
        for path in sorted(source.iterdir()):
            if path.name in (CONFIG, MARKER, PARAMS):
                continue
            copy = shutil.copytree if path.is_dir() else shutil.copyfile
            copy(path, partial / path.name)
        text = json.dumps(config.to_hf(), indent=2, ensure_ascii=False) + "\n"
        (partial / CONFIG).write_text(text, encoding="utf-8")
        save_params(partial, jax.tree.map(lambda x: jnp.asarray(x, dtype), params))
