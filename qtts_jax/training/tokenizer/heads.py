"""What reads features and spectra from the codes while a tokenizer is trained."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.layers.linear import Linear

# Of the hidden layer that tells spectra. Harmonics of a pitch are no linear function of it.
HIDDEN = 1024


class EnvelopeHead(nnx.Module):
    """Spectra of a frame, told by the vectors of this frame and the one before.

    A decoder knows what it has heard, and the first windows of a frame lie half in the last one:
    the codes need not say it twice.

    Args:
        width: D of the vectors.
        spectra: S, numbers of a frame.
    """

    def __init__(self, width: int, spectra: int, *, rngs: nnx.Rngs) -> None:
        axes: Any = ("embed",), (None,)
        self.straight = Linear((2 * width,), (spectra,), *axes, bias=True, rngs=rngs)
        self.hidden = Linear((2 * width,), (HIDDEN,), *axes, bias=True, rngs=rngs)
        self.bent = Linear((HIDDEN,), (spectra,), *axes, rngs=rngs)

    def __call__(self, vectors: jax.Array) -> jax.Array:
        """vectors [B, T, D] -> [B, T, S]; before the first frame they are zeros."""
        before = jnp.pad(vectors, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        x = jnp.concatenate([vectors, before], axis=-1)
        return self.straight(x) + self.bent(jax.nn.gelu(self.hidden(x)))


class Heads(nnx.Module):
    """What reads from the decoder's input; only training has it.

    Args:
        widths: D of the decoder's input; of the teacher's features, read from the semantic
            vectors, or None; and of a frame's spectra, read from all vectors, or None.
    """

    def __init__(self, widths: tuple[int, int | None, int | None], *, rngs: nnx.Rngs) -> None:
        width, teacher, spectra = widths
        if teacher is not None:
            self.teacher = Linear((width,), (teacher,), ("embed",), (None,), rngs=rngs)
        if spectra is not None:
            self.envelope = EnvelopeHead(width, spectra, rngs=rngs)
