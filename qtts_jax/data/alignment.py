"""The text token spoken in each frame, from the alignment of a manifest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qtts_jax.text.bpe import TextTokenizer


def token_ends(tokenizer: TextTokenizer, text: str, text_ids: Sequence[int]) -> np.ndarray:
    """Where the tokens of a text end: [N] float64, ascending, in characters of the text.

    A token may end inside a character, of which it then has the part that its bytes are.

    Args:
        text_ids: the text as `TextTokenizer.assistant_ids` gives it.
    """
    sizes = [tokenizer.token_size(i) for i in text_ids]
    if tokenizer.normalize(text) == text:
        bounds = np.cumsum([0, *(len(c.encode()) for c in text)])
    else:  # bytes after composition; a combining mark may take some back, but bounds never decrease
        prefixes = [tokenizer.normalize(text[:i]) for i in range(len(text) + 1)]
        bounds = np.maximum.accumulate([len(prefix.encode()) for prefix in prefixes])
    # Counted from the end: line breaks that open a text may be in the last token before it.
    ends = bounds[-1] - np.cumsum([0, *sizes[:0:-1]])[::-1]
    return np.interp(ends, bounds, np.arange(len(bounds)))


def tokens_of_frames(
    text_ids: Sequence[int],
    ends: np.ndarray,
    alignment: Sequence[Sequence[float]],
    frames: int,
    frame_rate: float,
) -> np.ndarray:
    """The token of a text that is spoken in the middle of each frame: [F] int32.

    Args:
        ends: [N] where each token ends, in characters (`token_ends`).
        alignment: [characters, seconds] pairs, as in a manifest; linear between two pairs, constant
            before the first and after the last.
        frame_rate: frames a second.
    """
    characters, seconds = np.asarray(alignment, np.float64).T
    at = np.interp((np.arange(frames) + 0.5) / frame_rate, seconds, characters)
    # The last token has the end of the text too.
    token = np.minimum(np.searchsorted(ends, at, side="right"), len(text_ids) - 1)
    return np.asarray(text_ids, np.int32)[token]
