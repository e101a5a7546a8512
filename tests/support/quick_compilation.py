"""Compilation without optimizations: tests and notebooks compile much and run little.

`tests/conftest.py` has this hook; elsewhere: `python -m pytest -p tests.support.quick_compilation`.
"""

import importlib.metadata
import os

import jax

# For JAX 0.10 alone; other releases may not start with a flag that they do not know. Building the
# kernels of fusions by MLIR takes most of the rest of a compilation, and cutting a small program
# into parts that are compiled apart takes a fifth of what then is left.
UNSPLIT = "--xla_cpu_parallel_codegen_split_count=1"
FLAGS = f"--xla_cpu_use_fusion_emitters=false {UNSPLIT}"
# `jax.jit(f, compiler_options=OPTIMIZED)` for loops whose steps outweigh their compilation: that of
# 500 steps of a small tokenizer takes 14 s and not 6, and the steps take 8 s and not 74.
OPTIMIZED = {"xla_backend_optimization_level": 1}


def pytest_configure(config):
    """Set the options for this process and those that it starts, but not for tests by hand."""
    if config.getoption("markexpr") == "by_hand":
        return
    jax.config.update("jax_disable_most_optimizations", True)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
