"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) on chosen matrices of a model."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, abstract, logical_axes, shapes_of
from qtts_jax.io.checkpoint import flatten_params

Adapters = dict[str, dict[str, jax.Array]]
"""Path of a matrix -> its factors `a` [rank, *in] and `b` [*out, rank]."""


@dataclass(frozen=True)
class LoraConfig:
    """Which matrices are adapted, and how.

    Attributes:
        rank: of the product that is added to a matrix.
        alpha: the product is scaled by alpha / rank.
        targets: a regular expression for slash-joined parameter paths; the default takes
            attention and feed-forward matrices of talker and code predictor.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: str = r"(talker|code_predictor)/transformer/layers/\d+/.*kernel"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"the rank of adapters must be at least 1, not {self.rank}.")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise ConfigError(f"lora targets {self.targets!r} is no pattern: {error}.") from error


def adapted(module: Any, config: Any, lora: LoraConfig) -> dict[str, int]:
    """Path of every adapted matrix, with how many of its last dimensions are inputs.

    Raises:
        ConfigError: the pattern finds no matrix.
    """
    state = nnx.state(shapes_of(module, config))
    columns = nnx.to_pure_dict(
        jax.tree.map(
            # -1 stands for parameters that are not matrices; None would not be a leaf.
            lambda v: v.get_metadata()["columns"] or -1,
            state,
            is_leaf=lambda v: isinstance(v, nnx.Param),
        )
    )
    pattern = re.compile(lora.targets)
    found = {
        name: count
        for name, count in flatten_params(columns).items()
        if count > 0 and pattern.fullmatch(name)
    }
    if not found:
        raise ConfigError(f"lora targets {lora.targets!r} name no matrix of the model.")
    return found


def init_adapters(module: Any, config: Any, lora: LoraConfig, key: jax.Array) -> Adapters:
    """Adapters whose product is zero: `a` random, `b` zero."""
    shapes = flatten_params(abstract(module, config)[1])
    out = {}
    for i, (name, columns) in enumerate(sorted(adapted(module, config, lora).items())):
        shape = shapes[name].shape
        rows, inputs = shape[:-columns], shape[-columns:]
        a = jax.random.normal(jax.random.fold_in(key, i), (lora.rank, *inputs))
        out[name] = {"a": a / math.sqrt(math.prod(inputs)), "b": jnp.zeros((*rows, lora.rank))}
    return out


def adapter_axes(module: Any, config: Any, lora: LoraConfig) -> dict[str, Any]:
    """Logical axes of the adapters, those of the dimensions of their matrices."""
    axes = logical_axes(module, config)
    leaves, _ = jax.tree_util.tree_flatten_with_path(axes, is_leaf=lambda x: isinstance(x, tuple))
    names = {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}
    return {
        name: {"a": (None, *names[name][-columns:]), "b": (*names[name][:-columns], None)}
        for name, columns in sorted(adapted(module, config, lora).items())
    }


def merge(params: Params, adapters: Adapters, lora: LoraConfig) -> Params:
    """The parameters with every product added to its matrix; also how training applies adapters.

    Raises:
        ConfigError: an adapter has no matrix in `params`.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    missing = sorted(set(adapters) - set(names))
    if missing:
        raise ConfigError(f"the model has no {missing[0]}, which the adapters belong to.")
    scale = lora.alpha / lora.rank

    def one(name: str, weight: jax.Array) -> jax.Array:
        if name not in adapters:
            return weight
        a, b = adapters[name]["a"], adapters[name]["b"]
        return weight + (scale * jnp.tensordot(b, a, axes=1)).astype(weight.dtype)

    return jax.tree.unflatten(
        tree, [one(name, leaf) for name, (_, leaf) in zip(names, leaves, strict=True)]
    )
