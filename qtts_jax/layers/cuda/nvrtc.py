"""CUDA C++ sources of this folder to PTX, by the runtime compiler that comes with `jax[cuda13]`."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent
# The oldest GPU that has the instructions; ptxas makes machine code for the one at hand.
ARCHITECTURE = "compute_90"
_NAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


def _candidates() -> Iterator[str]:
    """Paths of NVRTC in NVIDIA's wheels, then names that the system's loader may know."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        for name in _NAMES:
            yield from map(str, sorted(Path(folder).glob(f"*/lib/{name}")))
    yield from _NAMES


@functools.cache
def library() -> ctypes.CDLL | None:
    """NVRTC; None where it is not installed."""
    for path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    return None


@functools.cache
def to_ptx(source: str, defines: tuple[tuple[str, str], ...]) -> str:
    """PTX of a file of this folder, about a second of work.

    Args:
        source: its name.
        defines: macros and their values.

    Raises:
        RuntimeError: NVRTC is missing or rejects the source.
    """
    nvrtc = library()
    if nvrtc is None:
        raise RuntimeError("NVRTC is not installed.")
    options = [
        f"--gpu-architecture={ARCHITECTURE}",
        "--std=c++17",
        f"--include-path={SOURCES}",
        *(f"--define-macro={name}={value}" for name, value in defines),
    ]
    program = ctypes.c_void_p()
    text = (SOURCES / source).read_bytes()
    _check(
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, source.encode(), 0, None, None), ""
    )
    try:
        encoded = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        failed = nvrtc.nvrtcCompileProgram(program, len(options), encoded)
        log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        _check(failed, f"{source}: {log.decode()}")
        ptx = _read(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx.decode()


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
