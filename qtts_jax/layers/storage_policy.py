"""Storage of weights and tables on one device: which form and place is fastest there."""

from __future__ import annotations

import functools
from pathlib import Path

import jax

from qtts_jax.layers.dispatch import decode_backend
from qtts_jax.placement import platform, single_device


def preproject_tables() -> bool:
    """Whether embedding tables are stored with their projections (`layers/preprojected_table.py`).

    True where the decoding kernels run: the projection would be the only product that is not fused
    with its neighbours. Elsewhere it costs too little to matter.
    """
    return decode_backend(1, 1) != "plain"


def tables_on_host() -> bool:
    """Whether the text embedding stays in host memory (`layers/host_table.py`): for one GPU."""
    return platform() == "gpu" and single_device()


@functools.cache
def exact_half_weights() -> bool:
    """Whether a float32 model stores weights of bfloat16 values as bfloat16.

    True on CPUs that multiply bfloat16 matrices (Intel AMX): half the memory is read, and the three
    times as many products cost less than that. The CPU flags are read from Linux's /proc/cpuinfo.
    """
    if jax.default_backend() != "cpu":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in text.split()
