"""A note on stderr while XLA compiles, which takes the longest on a checkpoint's first use."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from qtts_jax import compilation_cache
from qtts_jax.cli.common import note

# Seconds of one compilation after which the note is printed. Programs of the cache take less.
PATIENCE = 1.0
# JAX records the first when a program is about to be compiled or looked up, the second after it.
_BEGIN = "/jax/core/compile/jaxpr_to_mlir_module_duration"
_END = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compile_note() -> Iterator[None]:
    """Inside, the first compilation that takes more than PATIENCE seconds prints a note."""
    import jax

    timer: threading.Timer | None = None
    printed = threading.Event()

    def stop() -> None:
        nonlocal timer
        if timer is not None:
            timer.cancel()
            timer = None

    def explain() -> None:
        if not printed.is_set():
            printed.set()
            config: Any = jax.config
            folder = config.jax_compilation_cache_dir
            later = (
                f"later runs find the programs in {folder}"
                if folder
                else (f"every run does, because no cache is set ({compilation_cache.SWITCH})")
            )
            note(f"note: compiling for the first use of this checkpoint; {later}")

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        nonlocal timer
        if event == _BEGIN and not printed.is_set():
            stop()
            timer = threading.Timer(PATIENCE, explain)
            timer.daemon = True
            timer.start()
        elif event == _END:
            stop()

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        stop()
        jax.monitoring.unregister_event_duration_listener(listen)
