"""How much of its codebooks a tokenizer uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def usage(codes: Sequence[np.ndarray], entries: int) -> dict[str, list[float]]:
    """Use and perplexity of each codebook.

    Args:
        codes: of each clip, int [T, Q] or, with one codebook, [T].
        entries: size of each codebook.

    Returns:
        `use`: share of the entries that occur, and `perplexity`: 2^(entropy of the entries), each
        a list of Q numbers. Neither can exceed the number of frames, so few frames look like poor
        use.
    """
    frames = np.concatenate([c.reshape(len(c), -1) for c in codes])
    use, perplexity = [], []
    for codes in frames.T:
        share = np.bincount(codes, minlength=entries) / len(codes)
        present = share[share > 0]
        use.append(len(present) / entries)
        perplexity.append(float(2 ** -np.sum(present * np.log2(present))))
    return {"use": use, "perplexity": perplexity}
