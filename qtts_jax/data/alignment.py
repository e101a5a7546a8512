"""Which token of a text is spoken in each frame, where a manifest knows when its words are."""

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
    else:  # bytes after composition; a mark may take some back, but the reader does not turn round
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
    """The token of a text that the reader is at in the middle of each frame: [F] int32.

    Args:
        ends: [N] where each token ends, in characters (`token_ends`).
        alignment: [characters, seconds] pairs, as in a manifest; the reader goes evenly from one
            to the next, and stands still before the first and after the last.
        frame_rate: frames a second.
    """
    characters, seconds = np.asarray(alignment, np.float64).T
    at = np.interp((np.arange(frames) + 0.5) / frame_rate, seconds, characters)
    # The last token has the end of the text too.
    token = np.minimum(np.searchsorted(ends, at, side="right"), len(text_ids) - 1)
    return np.asarray(text_ids, np.int32)[token]
