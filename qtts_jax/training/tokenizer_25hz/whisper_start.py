"""Initial parameters of a 25 Hz encoder from the encoder of Whisper.

The report of Qwen3-TTS (arXiv:2601.15621, section on the 25 Hz tokenizer) begins with a trained
audio encoder, which is not published; Whisper's (arXiv:2212.04356) has the same layers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from qtts_jax.configs.tokenizer_25hz import Encoder25HzConfig
from qtts_jax.data.whisper import WhisperConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, initialize
from qtts_jax.models.tokenizer_25hz import Encoder25Hz

COPIED = ("conv1", "conv2", "layers", "norm")
# Names in `encoder_config` of the sizes that must be equal.
SIZES = {"n_mels": "n_mels", "width": "n_state", "heads": "n_head", "layers": "n_layer"}


def whisper_start(
    config: Encoder25HzConfig, sizes: WhisperConfig, whisper: Params, seed: int
) -> Params:
    """The float32 tree of an `Encoder25Hz` that begins as Whisper's encoder.

    Convolutions, all blocks and the last norm are Whisper's; positions are the same sinusoids,
    begun anew in every window. What the codebook adds between the blocks starts as the identity:
    downsampling averages, upsampling repeats, the projection of positions passes on. The rest is
    random: output, ends, and the projections of a codebook of another width. The codebook counts
    as not initialized, so k-means on the first batch fills it.

    Args:
        config: sizes of the encoder.
        sizes, whisper: configuration and parameters of a `WhisperEncoder`.
        seed: of the random parameters.

    Raises:
        ConfigError: mel bins, width, heads or layers differ.
    """
    pairs = {SIZES[name]: (getattr(config, name), getattr(sizes, name)) for name in SIZES}
    different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if different:
        wanted = ", ".join(f"{name} {there}" for name, (_, there) in different.items())
        found = ", ".join(str(here) for here, _ in different.values())
        raise ConfigError(
            f"this Whisper encoder needs {wanted} in encoder_config, not {found}; change the "
            "preset or --config, or take another Whisper model."
        )
    tree: Params = initialize(Encoder25Hz, config, seed)
    tree |= {name: jax.tree.map(_float32, whisper[name]) for name in COPIED}
    same = jnp.eye(config.width)
    if config.downsample > 1:
        steps = config.downsample
        tree["downsample"] |= {"kernel": jnp.stack([same / steps] * steps)}  # [k, in, out]
        tree["upsample"] |= {"kernel": jnp.stack([same] * steps, axis=1)[None]}  # [1, in, k, out]
    if config.positions_after_quantizer:
        tree["positioned"] |= {"kernel": same}  # [out, in]
    tree["quantizer"] |= {"initialized": jnp.zeros((1,))}
    return tree


def _float32(x: Any) -> jax.Array:
    return jnp.asarray(x, jnp.float32)
