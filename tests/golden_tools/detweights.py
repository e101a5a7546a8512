"""Deterministic, name-keyed weights and inputs, in numpy only.

Every tensor of a small test checkpoint is a function of (seed, tensor name, shape), so both
sides of a comparison can derive identical float32 arrays and none has to be stored. The
generator is SplitMix64 in plain uint64 arithmetic and therefore independent of the random
number generator of any library.

    python -m tests.golden_tools.detweights tests/golden/ckpt

writes `model.safetensors` beside every `manifest.json` below the given directory.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1 << 22

# Non-trainable buffers that a model computes by formula; never drawn from the key.
COMPUTED_SUFFIXES = ("inv_freq", "positional_embedding")

Manifest = Mapping[str, Any]
"""{"seed": int, "tensors": {name: shape}, "computed": {name: spec of `computed`}}"""


def _key(seed: int, name: str) -> np.uint64:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def uniform01(seed: int, name: str, n: int) -> np.ndarray:
    """Return float32 [n] in [0, 1): value i is SplitMix64 of key + (i + 1) * golden ratio."""
    out = np.empty(n, np.float32)
    key = _key(seed, name)
    with np.errstate(over="ignore"):
        for start in range(0, n, _BLOCK):
            stop = min(n, start + _BLOCK)
            z = key + _STEP * (np.arange(start, stop, dtype=np.uint64) + np.uint64(1))
            z = (z ^ (z >> np.uint64(30))) * _MIX_1
            z = (z ^ (z >> np.uint64(27))) * _MIX_2
            z = z ^ (z >> np.uint64(31))
            # The top 24 bits are exactly representable in float32.
            out[start:stop] = (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    return out


def symmetric(seed: int, name: str, shape: Sequence[int], bound: float = 1.0) -> np.ndarray:
    """Return a float32 array of `shape`, uniform in [-bound, bound)."""
    n = int(np.prod(shape)) if len(shape) else 1
    u = uniform01(seed, name, n)
    return ((u * np.float32(2.0) - np.float32(1.0)) * np.float32(bound)).reshape(shape)


def integers(seed: int, name: str, shape: Sequence[int], high: int) -> np.ndarray:
    """Return an int64 array of `shape`, uniform in [0, high)."""
    u = uniform01(seed, name, int(np.prod(shape))).astype(np.float64)
    return np.minimum((u * high).astype(np.int64), high - 1).reshape(shape)


def _gain(name: str, parent: str, shape: tuple[int, ...]) -> float:
    """Scale of a matrix or convolution relative to unit variance of its output."""
    if parent == "codec_head" or "lm_head" in name:
        return 3.0  # healthy gaps between logits
    if len(shape) == 3 and shape[0] == 1:
        return 0.3  # last convolution of a vocoder: avoids clipping
    if name.endswith(
        (".tokenizer.conv1.weight", ".tokenizer.conv2.weight", "audio_vq_downsample.weight")
    ):
        return 3.0  # 25 Hz encoder: keeps the content above the position table
    if ".conv2.conv." in name or ".convs2." in name:
        return 0.25  # second convolution of a vocoder residual unit
    return 1.0


def tensor(seed: int, name: str, shape: Sequence[int]) -> np.ndarray | None:
    """Return checkpoint tensor `name` (float32), or None for the buffers in COMPUTED_SUFFIXES."""
    shape = tuple(int(s) for s in shape)
    leaf = name.rsplit(".", 1)[-1]
    parent = name.rsplit(".", 2)[-2] if "." in name else ""
    if leaf in COMPUTED_SUFFIXES:
        return None
    if leaf in ("initialized", "inited"):
        return np.ones(shape, np.float32)
    if leaf == "cluster_size":
        return np.zeros(shape, np.float32)
    if leaf == "cluster_usage":  # moving-average counts, deliberately not 1
        return np.float32(1.25) + symmetric(seed, name, shape, 0.75)
    if leaf in ("embedding_sum", "embed_sum", "embed", "embed_avg"):
        return symmetric(seed, name, shape, 1.7)
    if leaf in ("alpha", "beta"):  # SnakeBeta, log scale
        return symmetric(seed, name, shape, 0.3)
    if leaf == "gamma":  # ConvNeXt layer scale
        return np.float32(0.3) + symmetric(seed, name, shape, 0.1)
    if leaf == "scale":  # transformer LayerScale
        return np.float32(0.4) + symmetric(seed, name, shape, 0.1)
    if leaf == "weight" and len(shape) == 1:  # every norm
        return np.float32(1.0) + symmetric(seed, name, shape, 0.1)
    if leaf == "bias":
        return symmetric(seed, name, shape, 0.05)
    if "embedding" in name or parent in ("codec_embed", "audio_bos_eos_token"):
        return symmetric(seed, name, shape, 1.0)
    # Linear [out, in], Conv1d [out, in / groups, k], ConvTranspose1d [in, out, k].
    fan = max(1, int(np.prod(shape[1:])))
    return symmetric(seed, name, shape, _gain(name, parent, shape) * np.sqrt(3.0 / fan))


def wave(seed: int, name: str, n: int, sample_rate: int) -> np.ndarray:
    """Return a float32 [n] test waveform in (-1, 1): gliding harmonics and bursts of noise."""
    t = np.arange(n, dtype=np.float64) / sample_rate
    p = uniform01(seed, name + "/p", 8).astype(np.float64)
    f0 = 90 + 200 * p[0]
    x = np.zeros(n)
    for h in range(1, 6):
        x += (0.35 / h) * np.sin(2 * np.pi * (f0 * h * t + 25 * p[h] * t * t) + 6.28 * p[h])
    tone = (0.5 + 0.5 * np.sin(2 * np.pi * (2.5 + 3 * p[6]) * t + 6.28 * p[7])) ** 3
    noise = (0.5 + 0.5 * np.sin(2 * np.pi * (1.1 + 2 * p[7]) * t + 6.28 * p[6])) ** 4
    x = x * tone + (0.3 * noise + 0.003) * symmetric(seed, name + "/n", (n,)).astype(np.float64)
    return (0.6 * x).astype(np.float32)


def computed(spec: Mapping[str, Any]) -> np.ndarray:
    """Return a formula buffer (float32).

    `spec` is {"kind": "rope", "dim", "base"} (inverse frequencies [dim / 2]) or
    {"kind": "sinusoid", "length", "channels"} (position table [length, channels]).
    """
    if spec["kind"] == "rope":
        d = spec["dim"]
        exponent = np.arange(0, d, 2, dtype=np.float32) / np.float32(d)
        return (1.0 / (spec["base"] ** exponent)).astype(np.float32)
    half = spec["channels"] // 2
    inv = np.exp((-np.log(10000) / (half - 1) * np.arange(half)).astype(np.float32))
    phase = np.arange(spec["length"], dtype=np.float32)[:, None] * inv[None]
    return np.concatenate([np.sin(phase), np.cos(phase)], axis=1).astype(np.float32)


def build(manifest: Manifest) -> dict[str, np.ndarray]:
    """Return every drawn tensor of a manifest by name; computed buffers are absent."""
    drawn = ((name, tensor(manifest["seed"], name, s)) for name, s in manifest["tensors"].items())
    return {name: value for name, value in drawn if value is not None}


def materialize(root: str | Path) -> None:
    """Write `model.safetensors` beside every `manifest.json` under `root`."""
    from safetensors.numpy import save_file

    for path in sorted(Path(root).rglob("manifest.json")):
        manifest = json.loads(path.read_text())
        arrays = {k: np.ascontiguousarray(v) for k, v in build(manifest).items()}
        for name, spec in manifest.get("computed", {}).items():
            arrays[name] = computed(spec)
        save_file(arrays, path.with_name("model.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    materialize(sys.argv[1])
