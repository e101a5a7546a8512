"""Sizes and limits of the serving engine; every program that they need is compiled at warm-up."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from qtts_jax.errors import RequestError
from qtts_jax.generation.batch import MIN_PROMPT

MIN_CAPACITY, CAPACITY_FACTOR, CAPACITY_STEP = 256, 4, 64


@dataclass(frozen=True)
class EngineSettings:
    """Sizes of the programs and limits of a request.

    Attributes:
        rows: how many utterances may run together: the batch sizes of the programs, ascending. The
            last is the most.
        chunk_frames: frames of one device program, ascending from 1. The chunks of an utterance
            grow from the first to the last.
        max_prompt: positions of a prompt (text, instruction and reference recording).
        max_text: text ids fed along with the frames.
        max_seconds: of one utterance; a longer one is cut.
        max_reference_seconds: of a recording whose voice is cloned.
        max_waiting: requests that wait for a row; more are refused.
        prefill_rows: how many requests that arrive together may be prefilled together: the batch
            sizes of the programs, ascending.
        offline: make codes without audio, for requests that are not played meanwhile. Programs are
            compiled when they are first needed, and a chunk is as long as it may be.

    Raises:
        RequestError: sizes that are not ascending or a limit below 1.
    """

    rows: tuple[int, ...] = (1, 4, 8)
    chunk_frames: tuple[int, ...] = (1, 4)
    max_prompt: int = 512
    max_text: int = 512
    max_seconds: float = 60.0
    max_reference_seconds: float = 15.0
    max_waiting: int = 64
    prefill_rows: tuple[int, ...] = (1, 4)
    offline: bool = False

    def __post_init__(self) -> None:
        for name in ("rows", "chunk_frames", "prefill_rows"):
            sizes = getattr(self, name)
            if not sizes or sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)):
                raise RequestError(f"{name} must be ascending whole numbers from 1, not {sizes}.")
        for name in ("chunk_frames", "prefill_rows"):  # text may arrive id by id, requests alone
            if getattr(self, name)[0] != 1:
                raise RequestError(f"{name} must begin with 1, not {getattr(self, name)}.")
        limits = ("max_prompt", "max_text", "max_seconds", "max_reference_seconds", "max_waiting")
        for name in limits:
            if getattr(self, name) <= 0:
                raise RequestError(f"{name} must be above 0, not {getattr(self, name)!r}.")

    @property
    def prefill_sizes(self) -> tuple[int, ...]:
        """Those of `prefill_rows` that `rows` has a use for."""
        pairs = zip((0, *self.prefill_rows), self.prefill_rows, strict=False)
        return tuple(size for smaller, size in pairs if smaller < self.rows[-1])

    @property
    def prompt_sizes(self) -> list[int]:
        """Padded lengths of prompts: powers of two times the smallest, up to the limit."""
        sizes = [MIN_PROMPT]
        while sizes[-1] < self.max_prompt:
            sizes.append(2 * sizes[-1])
        return sizes

    def capacities(self, max_frames: int, context: int) -> list[int]:
        """Positions of the key/value caches, ascending: few sizes, each compiled once.

        Args:
            max_frames: of one utterance.
            context: positions that the model has.
        """
        # A row whose last frame is made runs on until its chunk ends.
        needed = min(self.max_prompt + max_frames, context) + self.chunk_frames[-1]
        largest = -(-max(needed, self.prompt_sizes[-1]) // CAPACITY_STEP) * CAPACITY_STEP
        sizes, size = [], MIN_CAPACITY
        while 2 * size <= largest:  # a size just below the largest would save little
            sizes.append(size)
            size *= 2 if self.offline else CAPACITY_FACTOR  # offline, only those used are compiled
        return [*sizes, largest]


def at_least(sizes: list[int] | tuple[int, ...], n: int) -> int:
    """The smallest of ascending sizes that is at least n; the largest if none is."""
    return next((size for size in sizes if size >= n), sizes[-1])


def at_most(sizes: list[int] | tuple[int, ...], n: float) -> int:
    """The largest of ascending sizes that is at most n; the smallest if none is."""
    return max((size for size in sizes if size <= n), default=sizes[0])


def sizes_up_to(largest: int, factor: int) -> tuple[int, ...]:
    """The powers of `factor` below `largest`, from 1, then `largest`."""
    sizes = [1]
    while sizes[-1] * factor < largest:
        sizes.append(sizes[-1] * factor)
    return (*sizes, largest) if largest > 1 else (1,)
