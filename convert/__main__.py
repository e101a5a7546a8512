"""Command line: `python -m convert [--to-torch] [--dry-run] [--overwrite] SRC [DST]`."""

import argparse
import ctypes
import platform
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from convert import to_orbax, to_torch
from convert.hub import resolve
from qtts_jax.errors import QTTSError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, with one line on stderr for a fault."""
    parser = argparse.ArgumentParser(
        prog="python -m convert",
        description="Convert a released checkpoint to Orbax, or back with --to-torch.",
    )
    parser.add_argument("source", help="folder, or hub id such as Qwen/Qwen3-TTS-12Hz-0.6B-Base")
    parser.add_argument("destination", nargs="?", type=Path, help="folder to make")
    parser.add_argument("--to-torch", action="store_true", help="from Orbax to safetensors")
    parser.add_argument("--dry-run", action="store_true", help="check and print the mapping only")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace DST if an earlier conversion made it"
    )
    options = parser.parse_args(arguments)
    if options.destination is None and not options.dry_run:
        parser.error("a destination is needed, except with --dry-run")
    try:
        source = resolve(options.source)
        if options.dry_run:
            print_mapping(source, options.to_torch)
        else:
            convert = to_torch.to_torch if options.to_torch else to_orbax.to_orbax
            convert(source, options.destination, options.overwrite)
    except QTTSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was kept", file=sys.stderr)
        return 130
    return 0


def print_mapping(source: Path, back: bool) -> None:
    """Print one line per torch tensor: its name, its shape and where its elements live."""
    arrow = "<-" if back else "->"
    mapping = to_torch.read_mapping(source) if back else to_orbax.torch_parts(source)
    for folder, found in mapping.items():
        print(f"{source / folder}: {len(found)} tensors")
        for part in found:
            print(f"  {part.source} {list(part.shape)} {arrow} {part.describe()}")


def return_freed_memory() -> None:
    """Have glibc give each freed block of a megabyte or more back to the system at once.

    By default it keeps freed blocks of up to 32 MB for reuse, which adds half of the largest
    parameter to the peak. Other C libraries are left alone.
    """
    if platform.libc_ver()[0] == "glibc":
        mmap_threshold = -3  # M_MMAP_THRESHOLD of malloc.h
        ctypes.CDLL(None).mallopt(mmap_threshold, 1 << 20)


def _terminate(signum: int, frame: object) -> None:
    """Let a polite kill clean up as an interrupt from the keyboard does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    return_freed_memory()
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main())
