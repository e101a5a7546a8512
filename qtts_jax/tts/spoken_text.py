"""The text that a request speaks: checked for words and, for some checkpoints, normalised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from qtts_jax.errors import TextError
from qtts_jax.text.spoken import Normalizer, has_words, normalize

NO_WORDS = "The text to speak has no letter or digit, so there is nothing to say: give one word."


def spoken_text(text: Any, language: str, normalized: bool, named_letters: bool = False) -> str:
    """A complete text as the model gets it.

    Args:
        language: full name or "auto"; read only if the text is normalised.
        normalized: rewrite numbers, abbreviations, marks and the like as words.
        named_letters: with spelled letters by name.

    Raises:
        TextError: the text is no string, is blank or has no letter or digit.
    """
    if not isinstance(text, str):
        raise TextError(f"text must be a string, not {type(text).__name__}.")
    if not text.strip():
        raise TextError("The text to speak is empty: give at least one word.")
    spoken = text
    if normalized and has_words(text):
        spoken = normalize(text, language, named_letters)
    if not has_words(spoken):
        raise TextError(NO_WORDS)
    return spoken


def spoken_pieces(
    pieces: Iterable[str], language: str, normalized: bool, named_letters: bool = False
) -> Iterator[str]:
    """`spoken_text` of a text that arrives in pieces; together the pieces are its result.

    Nothing is given out before the first letter or digit, so marks alone are never spoken.

    Raises:
        TextError: as `spoken_text`; at the end of the text for one without words.
    """
    held: str | None = ""  # the text before its first letter or digit; None after it
    normalizer = Normalizer(language, named_letters) if normalized else None
    for piece in pieces:
        if not isinstance(piece, str):
            raise TextError(f"Text must arrive as str, got {type(piece).__name__}.")
        spoken = piece if normalizer is None else normalizer.push(piece)
        if held is not None:
            held += spoken
            spoken, held = (held, None) if has_words(held) else ("", held)
        yield spoken
    rest = "" if normalizer is None else normalizer.finish()
    if held is not None:
        rest = held + rest
        if not rest.strip():
            raise TextError("The text to speak is empty: give at least one word.")
        if not has_words(rest):
            raise TextError(NO_WORDS)
    yield rest
