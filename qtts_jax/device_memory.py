"""A device that runs out of memory as one sentence instead of the allocator's report."""

import re

from qtts_jax.errors import DeviceMemoryError


def check_memory(error: Exception, work: str, remedy: str) -> None:
    """Refuse work whose fault is that the device's memory did not suffice.

    Args:
        error: `jax.errors.JaxRuntimeError`; other faults than RESOURCE_EXHAUSTED pass.
        work: what did not fit, such as "speech of 8 texts".
        remedy: what the user can do, after "; ".

    Raises:
        DeviceMemoryError: memory did not suffice; names the bytes of the allocation that failed.
    """
    if "RESOURCE_EXHAUSTED" not in str(error):
        return
    size = re.search(r"allocat\w* (?:of )?(\d+) bytes", str(error))
    needed = f" (an array of {int(size[1]) / 1e9:.1f} GB)" if size else ""
    raise DeviceMemoryError(f"no memory is left for {work}{needed}; {remedy}.") from error
