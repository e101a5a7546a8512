"""The folders of a checkpoint and what belongs to each of them.

A TTS checkpoint is two checkpoints: the root and its `speech_tokenizer/`. A tokenizer folder alone
is one. Both directions of the converter walk the same list.
"""

import shutil
from pathlib import Path

from convert.models import is_tokenizer
from qtts_jax.io.checkpoint import MARKER, PARAMS, read_config

SPEECH_TOKENIZER = "speech_tokenizer"
# Beside the weights of an export, which is otherwise the released layout byte for byte: such a
# folder may be overwritten by a later conversion.
EXPORT_MARKER = "model.safetensors.qtts_jax.json"
OWN = (MARKER, EXPORT_MARKER)
_WEIGHT_FILES = {".safetensors", ".bin", ".pt", ".pth"}


def checkpoint_folders(root: Path) -> list[str]:
    """Paths, relative to `root`, of the checkpoints in it."""
    return ["."] if is_tokenizer(read_config(root)) else [".", SPEECH_TOKENIZER]


def read_folders(root: Path) -> list[Path]:
    """All folders that a conversion of `root` reads, the parameters of each included."""
    folders = [root / name for name in checkpoint_folders(root)]
    params = [folder / PARAMS for folder in folders]
    return [*folders, *(folder for folder in params if folder.is_dir())]


def copy_side_files(source: Path, destination: Path) -> None:
    """Copy configs, vocabularies and other small files of one folder byte by byte."""
    destination.mkdir(exist_ok=True)
    for path in sorted(source.iterdir()):
        weights = path.suffix in _WEIGHT_FILES or path.name.endswith(".safetensors.index.json")
        if path.is_file() and not weights and path.name not in OWN and path.name[0] != ".":
            shutil.copyfile(path, destination / path.name)
