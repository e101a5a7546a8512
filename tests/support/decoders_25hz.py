"""Small decoders of the 25 Hz tokenizer with the weights of the golden files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convert.computed import Computed
from convert.faults import Faults
from convert.rules import plan
from convert.tokenizer_25hz_decoder_rules import decoder_rules
from qtts_jax.configs.tokenizer_25hz import TOKENIZER_25HZ, Tokenizer25HzConfig
from qtts_jax.functional import abstract
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.models.tokenizer_25hz import Decoder25Hz
from tests.golden_tools import detweights
from tests.golden_tools.cases_25hz_decoder import CASES
from tests.support.helpers import GOLDEN

CASES_BY_NAME = {case.name: case for case in CASES}
# Compiling costs more than running for models of this size.
UNOPTIMIZED = {"xla_backend_optimization_level": 0}


class Root(nnx.Module):
    """The place of the decoder in a tokenizer, for the table."""

    def __init__(self, config, *, rngs):
        self.decoder = Decoder25Hz(config, rngs=rngs)


def golden_config():
    """The decoder of the golden checkpoint, and the seed of its weights."""
    folder = GOLDEN / "ckpt" / "tokenizer_25hz"
    data = json.loads((folder / "config.json").read_text())
    seed = json.loads((folder / "manifest.json").read_text())["seed"]
    return Tokenizer25HzConfig.from_hf(data).decoder, seed


def decoder_config(sections):
    """The decoder that `decoder_config` of a config.json describes."""
    data = {"model_type": TOKENIZER_25HZ, "encoder_config": {}, "decoder_config": sections}
    return Tokenizer25HzConfig.from_hf(data).decoder


def decoder_params(config, seed):
    """Parameters drawn by torch name, as the official models of the golden files have them."""
    shapes = abstract(Root, config)[1]
    flat = flatten_params(shapes)
    rules = [rule for rule in decoder_rules(config) if not isinstance(rule, Computed)]
    arrays = {name: np.full(leaf.shape, np.nan, np.float32) for name, leaf in flat.items()}
    for part in plan(rules, {name: tuple(leaf.shape) for name, leaf in flat.items()}, Faults()):
        view = part.view(arrays[part.target])
        view[...] = detweights.tensor(seed, part.source, part.shape).reshape(view.shape)
    leaves = [jnp.asarray(arrays[name]) for name in flat]
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)["decoder"]
