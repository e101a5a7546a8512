"""The one place that chooses between the plain definition of a layer and a kernel for a device."""

from __future__ import annotations

from typing import Literal

import jax

Backend = Literal["plain", "triton", "interpret"]

# Tests set this to run the kernels without a GPU ("interpret") or never ("plain").
override: Backend | None = None


def decode_backend(rows: int, steps: int) -> Backend:
    """How one decoding step of `rows` rows and `steps` positions runs; read while tracing.

    The fused kernels are for one position of one row, where a layer is bound by the number of
    kernels, and for one NVIDIA GPU; everything else is the plain path, which XLA compiles.
    """
    if rows != 1 or steps != 1:
        return "plain"
    if override is not None:
        return override
    if jax.default_backend() != "gpu" or jax.device_count() > 1:
        return "plain"
    return "triton" if "cuda" in jax.devices()[0].client.platform_version.lower() else "plain"
