"""A directory that appears complete or not at all."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from qtts_jax import processes
from qtts_jax.errors import CheckpointError
from qtts_jax.io.config_file import MARKER


@contextmanager
def new_directory(
    destination: Path,
    overwrite: bool,
    sources: Iterable[Path] = (),
    markers: Sequence[str] = (MARKER,),
    together: bool = False,
) -> Iterator[Path]:
    """Yield an empty sibling of `destination` that takes its place when the block succeeds.

    On any exception, an interrupt included, the sibling is removed and an earlier `destination`
    stays as it was. A destination that is a symbolic link is followed: the link stays, and the
    folder that it names is made or replaced.

    Args:
        overwrite: replace an earlier `destination`, if this package made it or it is empty.
        sources: folders that the block reads; `destination` must neither be, hold nor lie in one.
        markers: glob patterns of names; a folder that holds one of them was made by this package.
        together: all processes that work together run the block on one folder, which process 0
            makes and renames. Files that are not shards of arrays are then for process 0 to write.

    Raises:
        CheckpointError: another process does not share the folder; `destination` exists and
            `overwrite` is false; it was not made by this
            package; it is, holds or lies in one of `sources`; it cannot be written; or the disk is
            full.
    """
    destination = destination.absolute()
    if destination.is_symlink():
        destination = destination.resolve()
    for source in sources:
        # A link in the source is followed: its target would survive, but the source would lose it.
        if destination.resolve() in (source.resolve(), *source.resolve().parents):
            raise CheckpointError(
                f"{destination} is or holds {source}, which is read for it, and making it would "
                "delete that; choose another destination."
            )
        if source.resolve() in destination.resolve().parents:
            raise CheckpointError(
                f"{destination} lies in {source}, which is read for it; choose a destination "
                "outside."
            )
    shared = together and processes.together()
    own = not shared or processes.writes()
    partial = destination.with_name(
        f"{destination.name}.partial-{'all' if shared else os.getpid()}"
    )
    try:
        if own:
            require_replaceable(destination, overwrite, markers)
            _remove_all(partial)  # left by a killed process of the same number
            partial.mkdir(parents=True)
        if shared:
            processes.wait_for_all(f"made {partial.name}")
            if not partial.is_dir():
                raise CheckpointError(
                    f"process {processes.number()} does not see {partial}, which process 0 made; "
                    "name a directory on a file system that all hosts share."
                )
        yield partial
        if shared:
            processes.wait_for_all(f"wrote {partial.name}")
        if own:
            _replace(partial, destination)
        if shared:
            processes.wait_for_all(f"renamed {partial.name}")
    except (OSError, ValueError) as error:
        if _disk_is_full(error):
            raise CheckpointError(
                "the disk of the destination is full; nothing was kept, free some space and try "
                "again."
            ) from error
        if isinstance(error, OSError):
            raise CheckpointError(f"{destination} cannot be written: {error}.") from error
        raise
    finally:
        if own:
            _remove_all(partial)


def require_replaceable(
    destination: Path, overwrite: bool, markers: Sequence[str] = (MARKER,)
) -> None:
    """Raise a `CheckpointError` unless `destination` is free or may be overwritten.

    Args:
        overwrite, markers: as of `new_directory`.
    """
    if not _exists(destination):
        return
    if not overwrite:
        raise CheckpointError(
            f"{destination} already exists; choose another destination, or overwrite it "
            "(`--overwrite`)."
        )
    if not destination.is_dir():
        raise CheckpointError(
            f"{destination} is a file, which is not overwritten by a folder; choose another "
            "destination or remove it."
        )
    own = any(next(destination.glob(marker), None) for marker in markers)
    if not own and any(destination.iterdir()):
        raise CheckpointError(
            f"{destination} was not made by this package (it has no {markers[0]}), so it is not "
            "overwritten; choose another destination, or remove it yourself."
        )


def require_space(directory: Path, size: int) -> None:
    """Raise a `CheckpointError` when the disk of `directory` cannot take `size` bytes more."""
    free = shutil.disk_usage(directory).free
    if free < size:
        raise CheckpointError(
            f"the disk of the destination is too full: {size / 1e6:.1f} MB are needed and "
            f"{free / 1e6:.1f} MB are free; nothing was kept, free some space and try again."
        )


def _replace(partial: Path, destination: Path) -> None:
    """Rename `partial` to `destination`; an earlier one is deleted only afterwards."""
    earlier = destination.with_name(f"{destination.name}.replaced-{os.getpid()}")
    if _exists(destination):
        os.replace(destination, earlier)
    try:
        os.replace(partial, destination)
    except BaseException:
        if _exists(earlier):
            os.replace(earlier, destination)
        raise
    _remove_all(earlier)


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _remove_all(path: Path) -> None:
    """Remove `path`, and what libraries put beside it as `path` and a further suffix."""
    if not path.parent.is_dir():
        return
    for left in list(path.parent.iterdir()):
        if left.name != path.name and not left.name.startswith(f"{path.name}."):
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def _disk_is_full(error: Exception) -> bool:
    """Whether Python, or TensorStore in the text of its error, reports a full disk or quota."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError) and error.errno in codes:
        return True
    return any(os.strerror(code) in str(error) for code in codes)
