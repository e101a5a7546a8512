"""A checkpoint named by its hub id, taken from the hub's cache or downloaded into it."""

import re
from pathlib import Path

from qtts_jax.errors import CheckpointError

_FILES = ["*.json", "*.txt", "*.safetensors", "speech_tokenizer/*"]


def resolve(source: str) -> Path:
    """The folder that `source` names: a local folder, or a hub id such as `Qwen/NAME`.

    Raises:
        CheckpointError: no such folder; or `huggingface_hub` (the `hub` extra) is not installed,
            or the hub cannot be reached and its cache lacks the files.
    """
    if Path(source).is_dir():
        return Path(source)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        raise CheckpointError(f"there is no folder {source}.")
    by_hand = (
        f"download all files of https://huggingface.co/{source} (its speech_tokenizer/ folder too) "
        "into a folder and give that folder instead"
    )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"there is no folder {source}, and to fetch it from the hub huggingface_hub is needed: "
            f"`pip install huggingface_hub`, or {by_hand}."
        ) from error
    try:
        return Path(snapshot_download(source, allow_patterns=_FILES))
    except Exception as error:  # the hub's client and its HTTP library raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{source} is not a local folder and could not be fetched from the hub ({reason}); "
            f"{by_hand}."
        ) from error
