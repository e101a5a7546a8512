"""Codes of all clips of a dataset, computed once, kept beside it, packed to the bits they need."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from qtts_jax.data.dataset import Dataset, Record
from qtts_jax.data.threads import in_order
from qtts_jax.errors import DataError
from qtts_jax.io.atomic_files import npz_bytes, sweep, write_whole
from qtts_jax.speech_tokenizer.base import FOLDER, SpeechTokenizer


class Codes(Mapping[int, np.ndarray]):
    """Codes int32 [F, Q] by the number of the clip in the dataset.

    Attributes:
        tokenizer: hash of the checkpoint that made them.
    """

    def __init__(self, codes: dict[int, np.ndarray], tokenizer: str) -> None:
        # Kept at 16 bits: 50 h of 12.5 Hz x 16 codebooks are 72 MB.
        self._codes, self.tokenizer = codes, tokenizer

    def __getitem__(self, index: int) -> np.ndarray:
        return self._codes[index].astype(np.int32)

    def __iter__(self) -> Iterator[int]:
        return iter(self._codes)

    def __len__(self) -> int:
        return len(self._codes)

    def frames(self, indices: Sequence[int]) -> np.ndarray:
        """[N] int64, lengths of clips."""
        return np.asarray([len(self._codes[i]) for i in indices], np.int64)


def encode_dataset(
    dataset: Dataset,
    tokenizer: str | os.PathLike[str],
    *,
    workers: int = 4,
    progress: bool = True,
) -> Codes:
    """Encode every clip, or read what an earlier call has kept.

    Codes lie in `codes-<hash of the checkpoint>` beside the shards, a file for each shard; a call
    that was stopped goes on at the next shard.

    Args:
        tokenizer: checkpoint folder of a speech tokenizer, or of a whole model.
        workers: shards at once.

    Raises:
        CheckpointError: `tokenizer` is no checkpoint.
        DataError: the dataset has neither its input nor its output rate, or a file of codes is
            damaged.
    """
    root = Path(tokenizer)
    root = root / FOLDER if (root / FOLDER).is_dir() else root
    digest = checkpoint_hash(root)
    cache = dataset.directory / f"codes-{digest[:16]}"
    groups: dict[int, list[Record]] = {}
    for record in dataset.records:
        groups.setdefault(record.shard, []).append(record)
    paths = {shard: cache / f"shard-{shard:05d}.npz" for shard in groups}
    missing = [shard for shard, path in paths.items() if not path.is_file()]
    if missing:
        model = SpeechTokenizer.from_pretrained(root)
        # A 25 Hz tokenizer encodes 16 kHz and decodes 24 kHz; it resamples what it encodes.
        if dataset.sample_rate not in (model.input_sample_rate, model.sample_rate):
            raise DataError(
                f"{root} encodes audio of {model.input_sample_rate} Hz, and the dataset has "
                f"{dataset.sample_rate} Hz; prepare it at the rate of the tokenizer."
            )
        cache.mkdir(exist_ok=True)
        sweep(cache)

        def encode(shard: int) -> int:
            items = [(dataset.wave(r.index), dataset.sample_rate) for r in groups[shard]]
            write_whole(paths[shard], pack(groups[shard], model.encode(items)))
            return len(items)

        total = sum(len(groups[shard]) for shard in missing)
        with tqdm(total=total, desc="encode", unit="clip", disable=not progress) as bar:
            # Some shards at once: while one is decoded, the device has another one to encode.
            for clips in in_order(encode, missing, workers):
                bar.update(clips)
    codes: dict[int, np.ndarray] = {}
    for path in paths.values():
        codes |= unpack(path)
    if sorted(codes) != list(range(len(dataset))):
        raise DataError(f"{cache} holds codes of other clips; remove it and encode again.")
    return Codes(codes, digest)


def checkpoint_hash(directory: Path) -> str:
    """Hash of all files of a checkpoint folder."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(directory)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def pack(records: Sequence[Record], codes: Sequence[np.ndarray]) -> bytes:
    """Codes [F, Q] or [F] of clips as a file, each code in as many bits as the largest needs."""
    flat = np.concatenate([c.reshape(len(c), -1) for c in codes]).astype(np.uint16)
    bits = max(int(flat.max()).bit_length(), 1)
    wide = (flat[..., None] >> np.arange(bits, dtype=np.uint16)) & 1
    return npz_bytes({
        "indices": np.asarray([r.index for r in records], np.int64),
        "frames": np.asarray([len(c) for c in codes], np.int64),
        "books": np.asarray(flat.shape[1]),
        "bits": np.asarray(bits),
        "packed": np.packbits(wide.astype(np.uint8)),
    })  # fmt: skip


def unpack(path: Path) -> dict[int, np.ndarray]:
    """Codes uint16 [F, Q] by the number of the clip.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            stored = {name: file[name] for name in file.files}
        frames, books, bits = stored["frames"], int(stored["books"]), int(stored["bits"])
        count = int(frames.sum()) * books
        wide = np.unpackbits(stored["packed"], count=count * bits).reshape(-1, books, bits)
        flat = wide @ (1 << np.arange(bits, dtype=np.uint16))
        parts = np.split(flat.astype(np.uint16), np.cumsum(frames)[:-1])
        return dict(zip(stored["indices"].tolist(), parts, strict=True))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}); remove it and encode again.") from error
