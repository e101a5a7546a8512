"""CUDA C++ sources of this folder to PTX, by the runtime compiler that comes with `jax[cuda13]`."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qtts_jax import compilation_cache
from qtts_jax.errors import QTTSError
from qtts_jax.io.atomic_files import write_whole

SOURCES = Path(__file__).parent
# The oldest GPU that has the instructions; ptxas makes machine code for the one at hand.
ARCHITECTURE = "compute_90"
# The oldest version of PTX that has them. NVRTC states its own, which an assembler of another
# release of CUDA may not know.
PTX = "8.0"
_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


def _candidates() -> Iterator[str]:
    """Paths of NVRTC in NVIDIA's wheels, then names that the system's loader may know."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        for name in _NAMES:
            yield from map(str, sorted(Path(folder).glob(f"*/lib/{name}")))
    yield from _NAMES


@functools.cache
def shared_library() -> ctypes.CDLL | None:
    """NVRTC; None where it is not installed."""
    for path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    return None


@functools.cache
def to_ptx(source: str, defines: tuple[tuple[str, str], ...]) -> str:
    """PTX of a file of this folder: compiled in about a second, or read from the cache.

    It is kept beside the compiled programs (`compilation_cache`), named by all that it depends on.

    Args:
        source: its name.
        defines: macros and their values.

    Raises:
        RuntimeError: NVRTC is missing or rejects the source.
    """
    options = (
        f"--gpu-architecture={ARCHITECTURE}",
        "--std=c++17",
        *(f"--define-macro={name}={value}" for name, value in defines),
    )
    digest = hashlib.sha256(repr((source, options, PTX, _version())).encode())
    for path in sorted(SOURCES.glob("*.cu*")):
        digest.update(path.read_bytes())
    folder = compilation_cache.directory()
    kept = None if folder is None else folder / f"{digest.hexdigest()}.ptx"
    if kept is not None and kept.is_file():
        return kept.read_text()
    ptx = _compiled(source, (*options, f"--include-path={SOURCES}"))
    if kept is not None:
        with contextlib.suppress(OSError, QTTSError):  # `compilation_cache.enable` warns of it
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_whole(kept, ptx.encode())
    return ptx


def _version() -> tuple[int, int]:
    """Version of NVRTC."""
    nvrtc = shared_library()
    if nvrtc is None:
        raise RuntimeError("NVRTC is not installed.")
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "")
    return major.value, minor.value


def _compiled(source: str, options: tuple[str, ...]) -> str:
    """PTX of a file of this folder."""
    nvrtc = shared_library()
    assert nvrtc is not None
    program = ctypes.c_void_p()
    text, name = (SOURCES / source).read_bytes(), source.encode()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, name, 0, None, None), "")
    try:
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = nvrtc.nvrtcCompileProgram(program, len(options), encoded)
        log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        _check(failed, f"{source}: {log.decode()}")
        ptx = _read(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program).decode()
        return re.sub(r"(?m)^\.version .*$", f".version {PTX}", ptx, count=1)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(size_of: Any, copy: Any, program: ctypes.c_void_p) -> bytes:
    """A text that NVRTC has for a program, without the zero at its end."""
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)), "")
    text = ctypes.create_string_buffer(size.value)
    _check(copy(program, text), "")
    return text.value


def _check(status: int, what: str) -> None:
    if status:
        raise RuntimeError(f"NVRTC failed with status {status}. {what}".strip())
