"""Keeps compiled programs on disk, so that later processes load them instead of compiling.

Loading a checkpoint and making a trainer call `enable`; importing the package changes nothing. One
switch, the environment variable `QTTS_COMPILATION_CACHE`, names another folder or is "off". Where
JAX's own cache is configured (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE), that
configuration is left as it is.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

SWITCH = "QTTS_COMPILATION_CACHE"
DEFAULT = Path("~/.cache/qtts_jax/xla")
_OFF = ("off", "0", "false", "no", "")
# JAX's default for programs that are too quick to compile to be kept.
_LEAST_SECONDS = 1.0


def directory() -> Path | None:
    """The folder that the switch chooses; None for none."""
    chosen = os.environ.get(SWITCH, str(DEFAULT))
    return None if chosen.strip().lower() in _OFF else Path(chosen).expanduser()


def enable() -> Path | None:
    """Keep every compiled program in `directory()`.

    Several devices of one CPU are left without a cache: their programs that come out of it do not
    keep collectives in order (JAX 0.10.2), and hang where a mesh has two axes.

    Returns:
        the folder in use, of this package or of JAX's own configuration; None for none.
    """
    import jax  # here, so that the command line answers usage errors without loading JAX

    config: Any = jax.config
    if not config.jax_enable_compilation_cache:
        return None
    if config.jax_compilation_cache_dir or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        known = config.jax_compilation_cache_dir
        return Path(known) if known else None
    folder = directory()
    if folder is None or (jax.default_backend() == "cpu" and jax.local_device_count() > 1):
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        warnings.warn(
            f"compiled programs cannot be kept in {folder} ({error}); name another folder in "
            f'{SWITCH}, or set it to "off".',
            stacklevel=3,
        )
        return None
    config.update("jax_compilation_cache_dir", str(folder))
    if config.jax_persistent_cache_min_compile_time_secs == _LEAST_SECONDS:
        # Small programs too: a process that finds all of them compiles nothing.
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder
