"""Arguments of the official verbs as the fields of requests: one for all texts, or one for each."""

from __future__ import annotations

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


def rows_of(
    text: str | list[str],
    *,
    non_streaming_mode: bool,
    normalize: bool | None,
    split: bool | None,
    sampling: dict[str, Any],
    **values: Any,
) -> list[dict[str, Any]]:
    """The fields of the request of each text, by name: the shared ones, and its own of `values`.

    Raises:
        RequestError: no text, or lists of different lengths.
    """
    texts = checked_texts(text)
    shared = shared_options(non_streaming_mode, normalize, split, sampling)
    own = zip(*columns(len(texts), **values), strict=True)
    return [
        {"text": each, **dict(zip(values, row, strict=True)), **shared}
        for each, row in zip(texts, own, strict=True)
    ]


def columns(n: int, **values: Any) -> list[list[Any]]:
    """A list of n entries for each argument, in order.

    Args:
        values: by name, one value or a list of one for all n texts, or a list of n.

    Raises:
        RequestError: a list of another length.
    """
    found = []
    for name, value in values.items():
        given = value if isinstance(value, list) else [value]
        if len(given) not in (1, n):
            raise RequestError(f"{name} has {len(given)} entries for {n} texts; give one or {n}.")
        found.append(given * n if len(given) == 1 else given)
    return found
