"""Which model and which table a checkpoint folder needs, by its `config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.computed import Computed
from convert.rules import Rule, Shape
from convert.tokenizer_12hz_rules import tokenizer_12hz_rules
from convert.tokenizer_25hz_rules import tokenizer_25hz_rules
from convert.tts_rules import tts_rules
from convert.unused import unused_tensors
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.configs.tokenizer_25hz import TOKENIZER_25HZ, Tokenizer25HzConfig
from qtts_jax.configs.tts import TOKENIZER_12HZ, TTSConfig
from qtts_jax.errors import CheckpointError
from qtts_jax.functional import abstract
from qtts_jax.io.checkpoint import flatten_params, read_config
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.models.tts_model import TTSModel

TTS = "qwen3_tts"
SPEAKER_ENCODER = "speaker_encoder."
# model_type -> module, its configuration, its table of rules and computed tensors
_MODELS: dict[str, tuple[Any, Any, Any]] = {
    TTS: (TTSModel, TTSConfig, tts_rules),
    TOKENIZER_12HZ: (Tokenizer12Hz, Tokenizer12HzConfig, tokenizer_12hz_rules),
    TOKENIZER_25HZ: (Tokenizer25Hz, Tokenizer25HzConfig, tokenizer_25hz_rules),
}


@dataclass(frozen=True)
class Model:
    """The table of a model and the shape of each of its parameters by path.

    `computed` are the torch tensors that fill no parameter, `unused` the names and shapes of those
    that may be stored and are left behind, `ignored` the prefixes of names that are left behind in
    any shape.
    """

    rules: list[Rule]
    shapes: dict[str, Shape]
    computed: list[Computed]
    unused: dict[str, Shape]
    ignored: tuple[str, ...] = ()
    is_tts: bool = False


def is_tokenizer(config: Mapping[str, Any]) -> bool:
    """Whether this is the config of a speech tokenizer rather than of a whole checkpoint."""
    return config.get("model_type") != TTS


def read_model(folder: Path) -> Model:
    """The model that `folder/config.json` describes.

    Raises:
        CheckpointError: no config, or a `model_type` without a table.
        ConfigError: a config that does not describe a model (see `from_hf`).
    """
    config = read_config(folder)
    return build_model(config, str(folder))


def build_model(config: Mapping[str, Any], where: str) -> Model:
    """The model that a config dictionary describes; only shapes are computed."""
    kind = config.get("model_type")
    if kind not in _MODELS:
        raise CheckpointError(
            f"{where} has model_type {kind!r}; supported are {', '.join(sorted(_MODELS))}."
        )
    module, config_class, table = _MODELS[kind]
    ours = config_class.from_hf(config)
    tree = abstract(module, ours)[1]
    entries: list[Rule | Computed] = table(ours)
    return Model(
        rules=[entry for entry in entries if isinstance(entry, Rule)],
        shapes={k: tuple(v.shape) for k, v in flatten_params(tree).items()},
        computed=[entry for entry in entries if isinstance(entry, Computed)],
        unused=unused_tensors(config) if kind == TTS else {},
        # The official class builds a speaker encoder for Base only, and loads any other type
        # without the tensors that a fine-tuning of Base may have kept.
        ignored=(SPEAKER_ENCODER,) if kind == TTS and ours.speaker_encoder is None else (),
        is_tts=kind == TTS,
    )
