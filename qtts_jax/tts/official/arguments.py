"""Arguments of the official verbs as the fields of requests: one for all texts, or one for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypedDict

from qtts_jax.errors import RequestError


class Options(TypedDict):
    """Fields that all texts of a call share; see `voices.py`."""

    stream_text: bool
    normalize: bool | None
    split: bool | None
    sampling: dict[str, Any]


def shared_options(
    non_streaming_mode: bool, normalize: bool | None, split: bool | None, sampling: dict[str, Any]
) -> Options:
    """The fields that all texts of a call share."""
    return {
        "stream_text": not non_streaming_mode,
        "normalize": normalize,
        "split": split,
        "sampling": sampling,
    }


def checked_texts(text: str | list[str]) -> list[str]:
    """The texts, as a list that is not empty.

    Raises:
        RequestError: it is empty.
    """
    texts = text if isinstance(text, list) else [text]
    if not texts:
        raise RequestError("the list of texts is empty; give at least one text.")
    return texts


def rows_of(text: str | list[str], **values: Any) -> Iterator[dict[str, Any]]:
    """The arguments of each text, by name.

    Raises:
        RequestError: no text, or lists of different lengths.
    """
    texts = checked_texts(text)
    columns = {name: spread(name, value, len(texts)) for name, value in values.items()}
    for i, each in enumerate(texts):
        yield {"text": each} | {name: column[i] for name, column in columns.items()}


def spread(name: str, value: Any, n: int) -> list[Any]:
    """One value, or a list of one, for all n texts; otherwise a list of n.

    Raises:
        RequestError: a list of another length.
    """
    values = value if isinstance(value, list) else [value]
    if len(values) == 1:
        return values * n
    if len(values) != n:
        raise RequestError(f"{name} has {len(values)} entries for {n} texts; give one or {n}.")
    return values
