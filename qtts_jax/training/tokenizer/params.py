"""Conversion between trained parameters with codebook statistics and a tokenizer's full tree.

The released layout stores every codebook twice (in the encoder and in the decoder) and four
projections that no code path reads (out of the encoder's quantizers, into the decoder's). Training
holds neither; a checkpoint gets the same codebooks in both halves, and zeros for the unused
projections.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict as flatten
from flax.traverse_util import unflatten_dict as unflatten

from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.dsp.loudness import SPEECH_LEVEL
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, abstract
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.training.tokenizer.codebook_ema import Codebooks, empty
from qtts_jax.training.tokenizer.config import Stage

PARTS = ("semantic", "acoustic")
STORED = ("embed_sum", "usage", "initialized")
UNREAD = {"encoder": "output_projection", "decoder": "input_projection"}

Path = tuple[Any, ...]


def check_trainable(config: Tokenizer12HzConfig) -> None:
    """Check that encoder and decoder use the same codes.

    Raises:
        ConfigError: they differ in codebooks, entries, width, semantic codebooks, frame rate or
            sample rate.
    """
    e, d = config.encoder, config.decoder
    rate = config.input_sample_rate
    pairs = (
        ("codebooks", config.codebooks, d.quantizer.books),
        ("entries per codebook", e.quantizer.entries, d.quantizer.entries),
        ("codebook width", e.quantizer.width, d.quantizer.width),
        ("semantic codebooks", e.quantizer.semantic, d.quantizer.semantic),
        ("samples per frame", e.samples_per_frame, d.samples_per_frame),
        ("sample rate", e.sample_rate, rate),
        ("sample rate", config.output_sample_rate, rate),
    )
    for name, a, b in pairs:
        if a != b:
            raise ConfigError(
                f"to train a tokenizer, encoder and decoder must agree on the {name}, but they "
                f"have {a} and {b}; change one of them."
            )
    if not 0 < e.quantizer.semantic < config.codebooks:
        raise ConfigError(
            f"to train a tokenizer it needs semantic and acoustic codebooks, but "
            f"{e.quantizer.semantic} of {config.codebooks} are semantic; change one of them."
        )


def initial(config: Tokenizer12HzConfig, key: jax.Array) -> tuple[Params, dict[str, Codebooks]]:
    """Random parameters and uninitialized codebooks, both float32.

    Kernels start larger than usual, so that speech reaches the codebooks at about a third of unit
    level and samples come out at about three times `SPEECH_LEVEL`. The usual start of a convolution
    keeps a third of the variance, less than a millionth after the whole encoder of the nano
    tokenizer; so far down activations are straight lines.
    """
    full = nnx.to_pure_dict(nnx.state(Tokenizer12Hz(config, rngs=nnx.Rngs(key))))
    flat = flatten(full)
    trained = {path: leaf * _gain(path) for path, leaf in flat.items() if _is_trained(path)}
    q = config.decoder.quantizer
    books = {"semantic": q.semantic, "acoustic": q.books - q.semantic}
    stats = {part: empty(n, q.entries, q.width) for part, n in books.items()}
    return unflatten(trained), stats


def assemble(config: Tokenizer12HzConfig, trained: Params, books: dict[str, Codebooks]) -> Params:
    """The whole tree of `Tokenizer12Hz(config)`, ready for `SpeechTokenizer` and `save_params`.

    Codebooks that the encoder stores beyond `config.codebooks` stay uninitialized.

    Args:
        trained: parameters, as `initial` gives them.
        books: statistics of the semantic and the acoustic codebooks.
    """
    shapes = flatten(abstract(Tokenizer12Hz, config)[1])
    flat = flatten(trained)
    return unflatten(
        {
            path: flat[path] if _is_trained(path) else _untrained(path, leaf.shape, books)
            for path, leaf in shapes.items()
        }
    )


def disassemble(config: Tokenizer12HzConfig, params: Params) -> tuple[Params, dict[str, Codebooks]]:
    """The inverse of `assemble`: trained parameters and codebooks of a checkpoint, float32.

    Args:
        params: of `Tokenizer12Hz(config)`, any floating dtype.
    """
    flat = {path: jnp.asarray(x, jnp.float32) for path, x in flatten(params).items()}
    trained = {path: leaf for path, leaf in flat.items() if _is_trained(path)}
    q, books = config.decoder.quantizer, {}
    for part, n in (("semantic", q.semantic), ("acoustic", q.books - q.semantic)):
        stored = {name: flat[("decoder", "quantizer", part, name)] for name in STORED[:2]}
        books[part] = Codebooks(
            **(empty(n, q.entries, q.width) | stored | {"initialized": jnp.ones((n, 1))})  # type: ignore[typeddict-item]
        )
    return unflatten(trained), books


def split(params: Params, stage: Stage) -> tuple[Params, Params]:
    """Split parameters into those that a stage trains and those it keeps frozen.

    The projections of the decoder's quantizer belong to the codes: the spectrum head reads
    their output.
    """

    def learns(path: Path) -> bool:
        if stage == "codes":
            return path[0] == "encoder" or path[1] == "quantizer"
        return stage == "joint" or path[0] == "decoder"

    flat = flatten(params)
    trained = {path: leaf for path, leaf in flat.items() if learns(path)}
    return unflatten(trained), unflatten({p: x for p, x in flat.items() if p not in trained})


def merge(trained: Params, frozen: Params) -> Params:
    """The inverse of `split`."""
    return unflatten(flatten(trained) | flatten(frozen))


def _gain(path: Path) -> float:
    """Factor that changes the variance of a kernel from 1 / (3 fan) to 1 / fan.

    Transformers have norms of their own, and residual branches should start small.
    """
    if path[-1] != "kernel" or {"transformer", "residuals", "convnext"} & set(path):
        return 1.0
    if path[:3] == ("encoder", "seanet", "input_conv"):
        return 3**0.5 / SPEECH_LEVEL
    if path[:2] == ("decoder", "output_conv"):
        return 3**0.5 * SPEECH_LEVEL
    return 3**0.5


def _is_trained(path: Path) -> bool:
    half, room, *_, leaf = path
    if room != "quantizer":
        return True
    return leaf not in STORED and path[3] != UNREAD[half]


def _untrained(path: Path, shape: tuple[int, ...], books: dict[str, Codebooks]) -> jax.Array:
    leaf = path[-1]
    if leaf not in STORED:
        return jnp.zeros(shape)
    statistics: Any = books[path[2]]
    stored = jnp.asarray(statistics[leaf])
    rest = [(0, shape[0] - stored.shape[0])] + [(0, 0)] * (len(shape) - 1)
    return jnp.pad(stored, rest, constant_values=1 if leaf == "usage" else 0)
