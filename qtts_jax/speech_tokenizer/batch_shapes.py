"""Covers inputs of any size by blocks and batches of a few sizes, so that programs are reused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Batch sizes of programs, largest first.
BATCH_SIZES = (8, 4, 2, 1)
# A block may exceed what is left to cover by this fraction; otherwise a smaller block is used.
MAX_PADDING = 0.25


def batches(
    lengths: Sequence[int], sizes: Mapping[int, Sequence[int]], devices: int = 1
) -> list[tuple[list[int], list[int]]]:
    """Items to process together, and the blocks that cover the longest of them.

    Args:
        lengths: of the items, in the unit of the blocks.
        sizes: allowed block sizes of a batch of each of `BATCH_SIZES`.
        devices: as of `group`.

    Returns:
        for each batch the indices of its items, the longest first, and its block sizes in order.
    """
    return [
        (rows, cover(lengths[rows[0]], sizes[len(rows) // devices]))
        for rows in group(lengths, devices)
    ]


def cover(n: int, sizes: Sequence[int]) -> list[int]:
    """Block sizes whose sum is at least n, at most `MAX_PADDING` of the last being padding.

    Args:
        n: items to cover; fewer than the smallest size take one block of that size.
        sizes: allowed block sizes, largest first.
    """
    chosen: list[int] = []
    while n > 0:
        larger = [size for size in sizes if size >= n]
        if larger and (larger[-1] == sizes[-1] or larger[-1] <= (1 + MAX_PADDING) * n):
            chosen.append(larger[-1])
            break
        chosen.append(next(size for size in sizes if size <= n))
        n -= chosen[-1]
    return chosen


def split(n: int, largest: int) -> list[int]:
    """Powers of two up to `largest` (itself one), largest first, whose sum is exactly n."""
    left = n % largest
    powers = [1 << bit for bit in reversed(range(left.bit_length())) if left >> bit & 1]
    return [largest] * (n // largest) + powers


def group(lengths: Sequence[int], devices: int = 1) -> list[list[int]]:
    """Indices of items to process together: similar lengths, in batches of `BATCH_SIZES`.

    Args:
        devices: over which rows are split; each has one of `BATCH_SIZES`. Where too few items are
            left, the last is repeated.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    groups = []
    while order:
        sizes = [size * devices for size in BATCH_SIZES]
        batch = next((size for size in sizes if size <= len(order)), devices)
        chosen, order = order[:batch], order[batch:]
        groups.append(chosen + chosen[-1:] * (batch - len(chosen)))
    return groups
