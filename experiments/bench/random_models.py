"""Library of the benchmarks: models of released sizes with random weights, made on the device."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from experiments import command
from qtts_jax import QwenTTS, SpeechTokenizer, embedded
from qtts_jax.configs.presets import tiny, tiny_tokenizer, tokenizer_12hz, tts_12hz
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.functional import abstract, logical_axes
from qtts_jax.generation.device_params import inference_params
from qtts_jax.layers import storage_policy
from qtts_jax.layers.quantized_weights import Weights, storage
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.sharding import shardings, whole
from qtts_jax.text.bpe import TextTokenizer

SIZES = {"0.6B": "0b6", "1.7B": "1b7"}
ROWS_AT_ONCE = 4096


def random_params(
    module: Any,
    config: Any,
    dtype: Any,
    weights: Weights | None = None,
    part: str | None = None,
    *,
    released: bool = False,
) -> Any:
    """Random parameters in `dtype`, made on the device, one small program for every shape.

    Args:
        weights: how matrices and tables are stored, each as soon as it is made; None for what a
            loader does.
        part: make only this part of the tree.
        released: values that bfloat16 has, as in released checkpoints.
    """

    def normal(key: jax.Array, shape: tuple[int, ...], std: float) -> jax.Array:
        def row(key: jax.Array) -> jax.Array:
            x = std * jax.random.normal(key, shape[1:])
            return (jax.lax.reduce_precision(x, 8, 7) if released else x).astype(dtype)

        # In equal blocks of rows: drawing the largest table at once would set the memory peak, and
        # so would appending a smaller last block, which copies the table.
        block = next(n for n in range(min(ROWS_AT_ONCE, shape[0]), 0, -1) if shape[0] % n == 0)
        return jax.lax.map(row, jax.random.split(key, shape[0]), batch_size=block)

    draw = jax.jit(normal, static_argnums=(1, 2))
    store = storage(module, config, dtype, weights)
    shapes = abstract(module, config)[1]
    if part is not None:
        shapes = {part: shapes[part]}
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    ones = ("scale", "usage", "initialized")
    made = []
    for i, (keys, x) in enumerate(leaves):
        path = tuple(str(key.key) for key in keys)
        ready = path[-1] in ones
        # Tables that a loader keeps in host memory must not raise the peak of device memory.
        host = storage_policy.tables_on_host() and path[-2:] == ("text_embedding", "table")
        with jax.default_device(jax.local_devices(backend="cpu")[0] if host else None):
            leaf = jnp.ones(x.shape, dtype) if ready else draw(jax.random.key(i), x.shape, 0.02)
            # One at a time, so that memory never holds a matrix twice.
            made.append(jax.block_until_ready(leaf if store is None else store(path, leaf)))
    return jax.tree.unflatten(tree, made)


def build(
    size: str,
    dtype: Any,
    weights: Weights | None = None,
    *,
    released: bool = False,
    mesh: Mesh | None = None,
) -> QwenTTS:
    """A checkpoint of a released size ("0.6B", "1.7B", or "tiny") that never ends an utterance.

    Args:
        dtype, weights, released: see `random_params`.
        mesh: devices over which the parameters are split; None for one.
    """
    config = tts_12hz(SIZES.get(size, "0b6"), "custom_voice")
    speech = tokenizer_12hz()
    if size == "tiny":
        config, speech = tiny(config), tiny_tokenizer(speech)
    params = random_params(TTSModel, config, dtype, weights, released=released)
    head = params["talker"]["codec_head"]
    # A logit of 0 is far outside the top 50 of 2048 random ones.
    head["kernel"] = jax.tree.map(lambda x: x.at[config.talker.eos_id].set(0), head["kernel"])
    codec = random_params(Tokenizer12Hz, speech, dtype)
    if mesh is None:
        params = inference_params(config, params)
    else:
        params = jax.device_put(params, shardings(mesh, logical_axes(TTSModel, config), params))
        codec = jax.device_put(codec, whole(mesh))
    tokenizer = SpeechTokenizer.from_params(speech, codec)
    tokenizer.keep_on_host("encoder")  # as `from_pretrained` does
    return QwenTTS(
        config,
        params,
        tokenizer,
        TextTokenizer.from_dir(embedded.DIRECTORY),
        SamplingParams(max_new_tokens=8192),
    )


if __name__ == "__main__":
    raise SystemExit(
        command.exit_status_of_library(
            __file__, "experiments.bench.decode", "experiments.bench.codec"
        )
    )
