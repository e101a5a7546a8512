"""The ONNX operations of Kokoro-82M that take more than a name of PyTorch, and fused ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

Tensor = torch.Tensor
Attributes = dict[str, Any]


def _layer_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = a.get("axis", -1) % x.dim()
    return functional.layer_norm(x, x.shape[axis:], scale, bias, a.get("epsilon", 1e-5))


def _skip_layer_norm(a: Attributes, x: Tensor, skip: Tensor, scale: Tensor,
                     bias: Tensor | None = None, more: Tensor | None = None) -> Tensor:  # fmt: skip
    x = x + skip if more is None else x + skip + more
    return functional.layer_norm(x, x.shape[-1:], scale, bias, a["epsilon"])


def _fast_gelu(a: Attributes, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


def _fused_matmul(a: Attributes, x: Tensor, y: Tensor) -> Tensor:
    if a.get("transBatchA") or a.get("transBatchB"):
        raise NotImplementedError("FusedMatMul that turns the axes of a batch")
    x = x.transpose(-1, -2) if a.get("transA") else x
    y = y.transpose(-1, -2) if a.get("transB") else y
    product = x @ y
    return product if a.get("alpha", 1.0) == 1.0 else product * a["alpha"]


def _resize(a: Attributes, x: Tensor) -> Tensor:
    """The last axis of three, by repetition or between neighbours; `scales` is an attribute."""
    kind = a["mode"], a["coordinate_transformation_mode"], a.get("nearest_mode")
    *others, scale = a["scales"]
    if x.dim() != 3 or others != [1.0, 1.0]:
        raise NotImplementedError(f"a Resize by {a['scales']}")
    if kind == (b"nearest", b"asymmetric", b"floor"):
        if scale != int(scale):
            raise NotImplementedError(f"a Resize by repetition with the scale {scale}")
        return x.repeat_interleave(int(scale), dim=2)
    if kind[:2] == (b"linear", b"half_pixel"):
        size = math.floor(x.shape[2] * scale)
        return functional.interpolate(x, size, mode="linear")
    raise NotImplementedError(f"a Resize of the kind {kind}")


def _stft(a: Attributes, x: Tensor, step: Tensor, window: Tensor,
          length: Tensor | None = None) -> Tensor:  # fmt: skip
    size = window.numel() if length is None else int(length)
    signal = x[..., 0] if x.dim() == 3 else x
    frames = signal.unfold(-1, size, int(step)) * window
    spectrum = torch.fft.rfft(frames) if a.get("onesided", 1) else torch.fft.fft(frames)
    return torch.view_as_real(spectrum)


def _lstm(a: Attributes, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
    """[T, B, I] -> [T, 2, B, H], both directions."""
    said, _ = a["module"](x, (h.contiguous(), c.contiguous()))
    return said.unflatten(-1, (2, -1)).transpose(1, 2)


def _normalise(a: Attributes, x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=a["epsilon"])


SPEECH: dict[str, Callable[..., Any]] = {
    "FastGelu": _fast_gelu,
    "FusedMatMul": _fused_matmul,
    "LayerNormalization": _layer_norm,
    "Resize": _resize,
    "STFT": _stft,
    "SkipLayerNormalization": _skip_layer_norm,
}

# What `onnx_fuse.py` makes of several operations.
FUSED: dict[str, Callable[..., Any]] = {
    # -0 + 0 is 0, whose angle is not -pi.
    "Angle": lambda a, y, x: torch.atan2(y + 0.0, x),
    "LSTM": _lstm,
    "Linear": lambda a, *x: functional.linear(*x),
    "MultiplyAdd": lambda a, term, x, y: torch.addcmul(term, x, y),
    "Normalise": _normalise,
}
