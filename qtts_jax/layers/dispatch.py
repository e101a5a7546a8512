"""Choice between the plain definition of a layer and a faster form, by the devices traced for."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import jax
import jax.numpy as jnp

from qtts_jax.layers.cuda.launch import available
from qtts_jax.layers.cuda.layout import BLOCKS
from qtts_jax.placement import heads_whole, platform, single_device

Backend = Literal["plain", "triton", "interpret"]

# Rows, and inputs of them all (four frames of waves), up to which a convolution is a product.
PRODUCT_ROWS, PRODUCT_STEPS = 4, 8192

# Scores (float32, 64 MiB) up to which attention takes all heads in one product.
TOGETHER_SCORES = 2**24

# Most values of an activation in a block of time on a CPU, 8 MiB of float32. So 128 frames of the
# 12 Hz encoder take 29 MB of temporary memory instead of 283. Beyond 32 MiB glibc gets it as fresh
# pages in every call, and to fill these takes longer than to compute the values. In smaller blocks
# (2**20 values) products are slower.
BLOCK_VALUES = 2**21

# Tests set this to run the kernels without a GPU ("interpret") or never ("plain").
override: Backend | None = None


def decode_backend(batch: int, time: int) -> Backend:
    """Backend of attention and sampling for `time` new positions per row; read while tracing.

    The kernels are for one position per row, where the number of kernels bounds the speed of a
    layer, and for one NVIDIA GPU; everything else is the plain path, which XLA compiles.
    """
    if time != 1:
        return "plain"
    if override is not None:
        return override
    return "triton" if platform() == "gpu" and single_device() and _cuda() else "plain"


def matvec_backend(batch: int) -> Backend:
    """Backend of products with weights: our kernels for one row, XLA's faster ones for more."""
    return decode_backend(batch, 1) if batch == 1 else "plain"


def persistent_kernels() -> bool:
    """Whether one row decodes by the persistent CUDA kernels of `layers/cuda`: on Hopper GPUs.

    Their blocks wait for each other, so all must run at once: a part of a GPU has too few
    multiprocessors. Where only a library is missing, a warning names it.
    """
    if override is not None or platform() != "gpu" or not single_device() or not _cuda():
        return False
    device = jax.local_devices()[0]
    if not device.compute_capability.startswith("9.") or device.core_count < BLOCKS:
        return False
    missing = available()
    if missing:
        warnings.warn(f"Decoding takes about twice as long as it could: {missing}.", stacklevel=2)
    return missing is None


def split_products() -> bool:
    """Whether float32 products with bfloat16 weights are made of bfloat16 ones: on CPUs.

    Elsewhere the weights are converted as they are read.
    """
    return platform() == "cpu"


def products_as_sums() -> bool:
    """Whether a product of one row with int4 weights is a sum over their bytes: on GPUs.

    XLA:CPU does not vectorise such a sum; there conversion and product take a fifth of its time.
    """
    return platform() == "gpu"


def sequence_backend(
    time: int, dtype: Any, frames: bool = False
) -> Literal["plain", "cudnn", "frames"]:
    """Backend of attention over training sequences of `time` positions.

    cuDNN's fused attention takes 16-bit types only. Over the few codebooks of a frame a call for
    each sequence is slower than plain products, and our kernel (`kernels/frame_attention.py`) is
    faster than both. It runs on the rows of each device (`placement.per_shard`), so not where a
    model axis splits heads.

    Args:
        frames: the kernel for frames admits the shapes.
    """
    if platform() != "gpu" or not _cuda() or jnp.dtype(dtype).itemsize != 2:
        return "plain"
    if time >= 64:
        return "cudnn"
    return "frames" if frames and heads_whole() else "plain"


def dilation_as_grid() -> bool:
    """Whether a dilated convolution runs as a plain one over folded time: on GPUs."""
    return platform() == "gpu"


def convolve_by_product(rows: int, steps: int) -> bool:
    """Whether a convolution over `steps` inputs of few rows is one matrix product: on GPUs.

    XLA launches a product with the kernels around it, as one graph, and calls cuDNN for a
    convolution in between, which for a few frames takes the host longer than the GPU.
    """
    return platform() == "gpu" and rows <= PRODUCT_ROWS and rows * steps <= PRODUCT_STEPS


def time_blocks(units: int, values: int) -> int:
    """Into how many equal blocks of time a step is divided: on CPUs, for the memory of one block.

    Args:
        units: of time that a block may have any number of.
        values: of the widest activation of the whole step; within `BLOCK_VALUES` in a block.
    """
    fewest = -(-values // BLOCK_VALUES) if platform() == "cpu" else 1
    # Where no number up to twice as many divides the units, blocks would be too small to pay.
    return next((n for n in range(fewest, 2 * fewest) if units % n == 0), 1)


def one_channel_as_sum() -> bool:
    """Whether a convolution of one channel is a sum of shifted products: on CPUs.

    XLA fuses the sum into one loop over the outputs, with what follows.
    """
    return platform() == "cpu"


def elu_by_tanh(dtype: Any) -> bool:
    """Whether ELU of float32 values is computed from a hyperbolic tangent alone: on CPUs.

    Elsewhere it takes as long as to read the values.
    """
    return platform() == "cpu" and jnp.dtype(dtype) == jnp.float32


def cache_write(
    time: int, heads: int, head_dim: int
) -> Literal["plain", "select", "rows", "interpret"]:
    """How `time` new positions per row enter a cache whose rows differ in their position.

    An update of a slice is then a scatter, which XLA:TPU makes a loop over the rows. On a TPU a
    kernel copies one position of every row ("rows", `kernels/cache_write.py`), where a position of
    the cache is whole tiles of memory and the kernel sees all of them. Otherwise the one or two
    positions of a frame are selected over all slots, which reads and writes the whole cache; a
    prompt is too long for that. Tests choose "interpret", the kernel without a TPU.
    """
    if platform() != "tpu" or time > 2:
        return "plain"
    whole_tiles = head_dim % 128 == 0 and (heads in (2, 4) or heads % 8 == 0)
    return "rows" if time == 1 and whole_tiles and single_device() else "select"


def caches_lengthen_after_prompt() -> bool:
    """Whether caches have their empty positions only after the first two of a frame: on TPUs.

    There attention reads every position of a cache, and XLA writes these two into an empty one by
    padding them, in a layout from which it then copies every cache.
    """
    return platform() == "tpu"


def heads_in_one_product(time: int, scores: int) -> bool:
    """Whether attention over a cache multiplies the queries of all heads with all keys: on TPUs.

    Args:
        time: new positions per row; the few of a frame leave the matrix unit room for all heads.
        scores: of all rows and pairs of heads. Writing more of them to memory takes longer than
            the products save.
    """
    return platform() == "tpu" and heads_whole() and time <= 2 and scores <= TOGETHER_SCORES


def heads_by_products(time: int, dtype: Any) -> bool:
    """Whether norm and rotation within a head of 16-bit values are products: on TPUs.

    A sum over a head or a slice of half of it is some small kernels there, and a product with a
    constant matrix, exact or in float32, is one. A prompt is bound by other products.
    """
    return platform() == "tpu" and time <= 2 and jnp.dtype(dtype).itemsize == 2


def fewest_rows() -> int:
    """The least rows of a batch on a device: 2 on TPUs, whose matrix unit XLA leaves idle for 1."""
    return 2 if platform() == "tpu" else 1


def _cuda() -> bool:
    """Whether GPUs are NVIDIA's."""
    return "cuda" in jax.local_devices()[0].client.platform_version.lower()
