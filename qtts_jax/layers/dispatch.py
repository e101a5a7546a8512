"""The one place that chooses between the plain definition of a layer and a kernel for a device."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

Backend = Literal["plain", "triton", "interpret"]

# Tests set this to run the kernels without a GPU ("interpret") or never ("plain").
override: Backend | None = None


def decode_backend(rows: int, steps: int) -> Backend:
    """How attention and sampling of `steps` new positions a row run; read while tracing.

    The kernels are for one position a row, where a layer is bound by the number of kernels, and
    for one NVIDIA GPU; everything else is the plain path, which XLA compiles.
    """
    if steps != 1:
        return "plain"
    if override is not None:
        return override
    if jax.default_backend() != "gpu" or jax.device_count() > 1:
        return "plain"
    return "triton" if "cuda" in jax.devices()[0].client.platform_version.lower() else "plain"


def matvec_backend(rows: int) -> Backend:
    """How products with weights run: by our kernels for one row; in a batch XLA's are better."""
    return decode_backend(rows, 1) if rows == 1 else "plain"


def projected_rows() -> bool:
    """Whether tables hold their rows also projected (`layers.projected`): beside our kernels.

    It is their only product that is not fused with its neighbours; elsewhere it does not count.
    """
    return decode_backend(1, 1) != "plain"


def tables_on_host() -> bool:
    """Whether the text embedding stays in the host's memory (`layers.host_table`): with one GPU."""
    return jax.default_backend() == "gpu" and jax.device_count() == 1


def split_products() -> bool:
    """Whether float32 products with bfloat16 weights are made of bfloat16 ones: on CPUs.

    Elsewhere the weights are converted as they are read.
    """
    return jax.default_backend() == "cpu"


@functools.cache
def exact_half_weights() -> bool:
    """Whether a float32 model keeps weights of bfloat16 values as bfloat16.

    It does on CPUs that multiply bfloat16 matrices (Intel AMX): half the memory is read, and the
    three times as many products cost less than that. Linux says what a CPU can do.
    """
    if jax.default_backend() != "cpu":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in text.split()


def sequence_backend(
    steps: int, dtype: Any, frames: bool = False
) -> Literal["plain", "cudnn", "frames"]:
    """How attention over whole training sequences of `steps` positions runs.

    cuDNN's fused attention takes 16-bit types only. Over the few codebooks of a frame a call for
    each sequence is slower than plain products, and our kernel (`kernels/frame_attention.py`) is
    faster than both; XLA cannot split it over devices.

    Args:
        frames: the kernel for frames admits the shapes.
    """
    cuda = jax.default_backend() == "gpu" and (
        "cuda" in jax.devices()[0].client.platform_version.lower()
    )
    if not cuda or jnp.dtype(dtype).itemsize != 2:
        return "plain"
    if steps >= 64:
        return "cudnn"
    return "frames" if frames and jax.device_count() == 1 else "plain"


def dilation_as_grid() -> bool:
    """Whether a dilated convolution is better run as a plain one over folded time: on GPUs."""
    return jax.default_backend() == "gpu"
