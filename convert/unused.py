"""Tensors that a checkpoint stores and no model reads.

The official class gives every talker a code predictor, also one with a single codebook, which has
nothing to predict. `save_pretrained` stores its weights as they were drawn. They are known here by
name and shape and left behind; an export leaves them out, and the official class draws new ones,
with a warning, when it loads it.
"""

import copy
from collections.abc import Mapping
from typing import Any

from convert.faults import Faults
from convert.rules import Shape, plan
from convert.tts_rules import CODE_PREDICTOR, tts_rules
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import abstract
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.models.tts_model import TTSModel

GROUPS = "num_code_groups"
PER_CODEBOOK = ("code_predictor/embeddings", "code_predictor/heads")


def unused_tensors(data: Mapping[str, Any]) -> dict[str, Shape]:
    """Name -> shape of the unused tensors that a text-to-speech checkpoint may store.

    Args:
        data: its `config.json`, already accepted by `TTSConfig.from_hf`.

    Returns:
        The code predictor that the file describes beside a talker with one codebook; nothing for
        any other talker, or where the file describes none.

    Raises:
        ConfigError: the section of that code predictor is damaged.
    """
    talker = data["talker_config"]
    predictor = talker.get("code_predictor_config")
    if talker[GROUPS] != 1 or predictor is None:
        return {}
    # The predictor has a count of its own (32 by default). A count of one means a stack
    # with neither embeddings nor heads; it is read as two, whose single pair is then dropped.
    codebooks = predictor.get(GROUPS, 1)
    read = copy.deepcopy(dict(data))
    for section in (read["talker_config"], read["talker_config"]["code_predictor_config"]):
        section[GROUPS] = 2 if codebooks == 1 else codebooks
    config = TTSConfig.from_hf(read)
    shapes = {
        name: tuple(leaf.shape)
        for name, leaf in flatten_params(abstract(TTSModel, config)[1]).items()
    }
    dropped = PER_CODEBOOK if codebooks == 1 else ()
    return {
        part.source: part.shape
        for part in plan(tts_rules(config), shapes, Faults())
        if part.source.startswith(CODE_PREDICTOR) and part.target not in dropped
    }
