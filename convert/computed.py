"""Tensors that a checkpoint stores although a formula gives them.

They are no parameters here. On the way in the stored table must agree with the formula, because a
model with another table would be another model; on the way out the formula is written, in float32
as it is computed with here, or in the narrower type that the source had.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convert.rules import Shape
from qtts_jax.layers import rope
from qtts_jax.modules import whisper_block

# Room for tables stored in bfloat16 (8 significant bits).
_RELATIVE = 2.0**-8

# Under this name a converted folder notes which tables its source stored rounded: name -> dtype.
ROUNDED_TABLES = "rounded_tables"


@dataclass(frozen=True)
class Computed:
    """A torch tensor that is computed instead of learned.

    Attributes:
        source: its name.
        shape: its shape.
        make: gives it, float32.
        absolute: difference that rounding of the formula itself explains.
    """

    source: str
    shape: Shape
    make: Callable[[], np.ndarray]
    absolute: float = 0.0

    def agrees(self, stored: np.ndarray) -> bool:
        """Whether `stored`, in any float type, holds this table."""
        values = stored.astype(np.float32)
        return np.allclose(values, self.make(), rtol=_RELATIVE, atol=self.absolute)

    def describe(self) -> str:
        """What messages call its place."""
        return "a computed table"


def sinusoids(source: str, length: int, width: int) -> Computed:
    """Whisper's table of positions [length, width] (`modules.whisper_block.sinusoids`).

    The phases grow with the position, and so does the effect of their rounding.
    """
    make = functools.partial(whisper_block.sinusoids, length, width)
    return Computed(source, (length, width), make, absolute=1e-6 * (1 + length))


def rotary_frequencies(source: str, head_dim: int, theta: float) -> Computed:
    """Angles a position turns by, [head_dim / 2] (`layers.rope.inverse_frequencies`)."""
    make = functools.partial(rope.inverse_frequencies, head_dim, theta)
    return Computed(source, (head_dim // 2,), make)
