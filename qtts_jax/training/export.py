"""Export of trained weights as checkpoint folders for `SpeechTokenizer` and `QwenTTS`.

They have the released layout, so `python -m convert --to-torch` exports them for the official
package.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params, cast
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.io.checkpoint import CONFIG, MARKER, PARAMS, save_params, stored_params
from qtts_jax.layers.rvq import divide
from qtts_jax.speech_tokenizer.reference_voice import CAMPPLUS, ReferenceVoice
from qtts_jax.speech_tokenizer.voice_files import write_voices


def save_tokenizer(
    directory: Path, config: Tokenizer12HzConfig, params: Params, dtype: Any = jnp.bfloat16
) -> Path:
    """Write a tokenizer checkpoint atomically; an earlier one is replaced.

    Args:
        params: of `TokenizerTask.tokenizer_params`.
        dtype: of the stored weights.

    Raises:
        CheckpointError: it cannot be written.
    """
    with new_directory(directory, overwrite=True) as out:
        _write_json(out / "config.json", config.to_hf())
        _write_json(out / "preprocessor_config.json", preprocessor(config.input_sample_rate))
        save_params(out, cast(divided_books(params), jnp.dtype(dtype)))
    return directory


def save_tokenizer_25hz(
    directory: Path,
    config: Tokenizer25HzConfig,
    params: Params,
    voices: Mapping[str, ReferenceVoice],
    *,
    speaker_network: Path | None = None,
    dtype: Any = jnp.bfloat16,
) -> Path:
    """Write a 25 Hz tokenizer checkpoint atomically; an earlier one is replaced.

    Args:
        params: of `Tokenizer25Hz`, such as a checkpoint with the parts that a task has trained.
        voices: by name, "default" for speakers without one; {} before the decoder is trained.
        speaker_network: `campplus.onnx`, which makes voices of recordings; None without one.
        dtype: of the stored weights.

    Raises:
        CheckpointError: it cannot be written.
    """
    sources = [] if speaker_network is None else [speaker_network]
    with new_directory(directory, True, sources) as out:
        _write_json(out / CONFIG, config.to_hf())
        save_params(out, cast(divided_books(params), jnp.dtype(dtype)))
        if voices:
            write_voices(out, voices)
        if speaker_network is not None:
            shutil.copyfile(speaker_network, out / CAMPPLUS)
    return directory


def save_talker(
    directory: Path,
    config: TTSConfig,
    params: Params,
    generation: dict[str, Any],
    dtype: Any = jnp.bfloat16,
) -> Path:
    """Write configuration and weights of a talker; the text and speech tokenizers are the caller's.

    Args:
        directory: an existing folder, such as that of `new_directory`.
        params: of `TalkerTask.model_params`.
        generation: content of `generation_config.json`.

    Raises:
        CheckpointError: it cannot be written.
    """
    _write_json(directory / "config.json", config.to_hf())
    _write_json(directory / "generation_config.json", generation)
    save_params(directory, cast(params, jnp.dtype(dtype)))
    return directory


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


def divided_books(params: Params) -> Params:
    """The tree with every codebook stored as its entries, with counts of 1.

    Entries are quotients of two averages, both of which a 16-bit dtype would round.
    """
    flat = dict(traverse_util.flatten_dict(params))
    for path in [p for p in flat if p[-1] == "embed_sum"]:
        count = (*path[:-1], "usage")
        flat[path] = divide(flat[path], flat[count])
        flat[count] = jnp.ones_like(flat[count])
    return traverse_util.unflatten_dict(flat)


def preprocessor(sample_rate: int) -> dict[str, Any]:
    """`preprocessor_config.json`, which the official package reads beside a tokenizer."""
    return {
        "chunk_length_s": None,
        "feature_extractor_type": "EncodecFeatureExtractor",
        "feature_size": 1,
        "overlap": None,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
        "sampling_rate": sample_rate,
    }


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
