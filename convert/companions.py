"""The files beside the weights that a text-to-speech checkpoint cannot be loaded without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from convert.faults import Faults
from qtts_jax.errors import QTTSError
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.tts.sampling_defaults import read_sampling_defaults

GENERATION = "generation_config.json"
_SINGLE = "tokenizer.json"
_TEXT_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


def check_companions(folder: Path, faults: Faults) -> None:
    """Add missing and unusable text files and generation settings of `folder` to `faults`."""
    text_files = () if (folder / _SINGLE).is_file() else _TEXT_FILES
    missing = [name for name in (*text_files, GENERATION) if not (folder / name).is_file()]
    for name in missing:
        faults.add("files are missing (copy them from the released checkpoint)", name)
    if not set(missing) & set(text_files):
        _attempt(lambda: TextTokenizer.from_dir(folder), faults)
    if GENERATION not in missing:
        _attempt(lambda: read_sampling_defaults(folder), faults, GENERATION)


def _attempt(read: Callable[[], Any], faults: Faults, name: str = "") -> None:
    try:
        read()
    except QTTSError as error:
        fault = str(error).removesuffix(".")
        faults.add("files cannot be used", f"{name}: {fault}" if name else fault)
