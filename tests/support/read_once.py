"""Parameters of a checkpoint folder that did not change are read from the disk once a process.

Orbax takes half a second of processor time for each small checkpoint, and tests load the same ones
some hundred times. What surrounds the reading (checks of files, names and shapes) still runs.
"""

import jax

from qtts_jax.io import checkpoint

LARGEST_BYTES = 64 << 20


def files_of(folder):
    """Name, size and time of every file, or None where they are too large to be kept."""
    stats = [(str(path), path.stat()) for path in sorted(folder.rglob("*"))]
    if sum(stat.st_size for _, stat in stats) > LARGEST_BYTES:
        return None
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def arguments_of(restore_args):
    """What decides the arrays that come back, or None where they are not arrays of one device."""
    found = []
    for name, args in restore_args.items():
        if args.restore_type is not jax.Array or len(args.sharding.device_set) > 1:
            return None
        found.append((name, args.dtype, args.sharding))
    return tuple(found)


def read_once(monkeypatch):
    """Make `checkpoint.load_params` keep the arrays and metadata that it reads."""
    restore, describe = checkpoint._restore, checkpoint.stored_params
    arrays, metadata = {}, {}

    def kept_restore(path, restore_args):
        key = files_of(path), arguments_of(restore_args)
        if None in key:
            return restore(path, restore_args)
        # A training step may have taken over the memory of an array that was handed out.
        if key not in arrays or any(x.is_deleted() for x in arrays[key].values()):
            arrays[key] = restore(path, restore_args)
        return dict(arrays[key])

    def kept_describe(directory):
        key = files_of(checkpoint._params_path(checkpoint.Path(directory)))
        if key is None or key not in metadata:
            metadata[key] = describe(directory)
        return dict(metadata[key])

    monkeypatch.setattr(checkpoint, "_restore", kept_restore)
    monkeypatch.setattr(checkpoint, "stored_params", kept_describe)
