"""A device that runs out of memory as one sentence instead of the allocator's report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from qtts_jax.errors import DeviceMemoryError


@contextmanager
def memory_faults(work: str, remedy: str) -> Iterator[None]:
    """Turn JAX's RESOURCE_EXHAUSTED inside the block into a `DeviceMemoryError`.

    Args:
        work: what did not fit, such as "speech of 8 texts".
        remedy: what the user can do, after "; ".

    Raises:
        DeviceMemoryError: memory did not suffice; names the bytes of the allocation that failed.
    """
    import jax  # here, so that the command line answers usage errors without loading JAX

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        size = re.search(r"allocat\w* (?:of )?(\d+) bytes", str(error))
        needed = f" (an array of {int(size[1]) / 1e9:.1f} GB)" if size else ""
        raise DeviceMemoryError(f"no memory is left for {work}{needed}; {remedy}.") from error
