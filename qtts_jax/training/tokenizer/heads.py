"""Auxiliary heads of tokenizer training: teacher features and spectra from quantized vectors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.layers.linear import Linear

# Width of the spectrum head's hidden layer; harmonics are not a linear function of pitch.
HIDDEN = 1024


class SpectrumHead(nnx.Module):
    """Predicts the spectra of a frame from the quantized vectors of this frame and the one before.

    It sees the previous frame too, because the decoder is causal and the first windows of a frame
    overlap it.

    Args:
        width: D, width of the vectors.
        spectra: S, values per frame.
    """

    def __init__(self, width: int, spectra: int, *, rngs: nnx.Rngs) -> None:
        axes: Any = ("embed",), (None,)
        self.straight = Linear((2 * width,), (spectra,), *axes, bias=True, rngs=rngs)
        self.hidden = Linear((2 * width,), (HIDDEN,), *axes, bias=True, rngs=rngs)
        self.bent = Linear((HIDDEN,), (spectra,), *axes, rngs=rngs)

    def __call__(self, vectors: jax.Array) -> jax.Array:
        """vectors [B, T, D] -> [B, T, S]; the frame before the first is zeros."""
        before = jnp.pad(vectors, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        x = jnp.concatenate([vectors, before], axis=-1)  # [B, T, 2 D]
        return self.straight(x) + self.bent(jax.nn.gelu(self.hidden(x)))


class Heads(nnx.Module):
    """Linear teacher head and spectrum head on the decoder's input, used in training only.

    Args:
        widths: of the decoder's input (D); of the teacher's features, predicted from the semantic
            vectors, or None; and of a frame's spectra, predicted from all vectors, or None.
    """

    def __init__(self, widths: tuple[int, int | None, int | None], *, rngs: nnx.Rngs) -> None:
        width, teacher, spectra = widths
        if teacher is not None:
            self.teacher = Linear((width,), (teacher,), ("embed",), (None,), rngs=rngs)
        if spectra is not None:
            self.envelope = SpectrumHead(width, spectra, rngs=rngs)
