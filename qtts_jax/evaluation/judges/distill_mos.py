"""Mean opinion score predicted by DistillMOS, from its own weights.

Stahl and Gamper 2025 (arXiv:2502.05356); the package `distillmos` 0.9.1 carries the trained weights
(MIT). Its own code needs torch, torchaudio and a second package; this is the same computation
(compressed complex spectrum, six convolutions, seven transformer layers, attention pooling) and
agrees with it to float32 rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.evaluation.judges.package import data_file
from qtts_jax.evaluation.judges.torch_file import read_torch_file

SAMPLE_RATE = 16_000
_SAMPLES = 122_880  # of one window, 7.68 s
_HOP, _FFT = 160, 320
_MAX_STEP = 16_000  # between windows of a longer recording
_CONVS, _LAYERS, _HEADS = 6, 7, 8
_HEAD = "transformer_pool_attn"
Params = dict[str, jax.Array]


class DistillMOSJudge:
    """Predicts how natural speech sounds, from 1 to 5.

    Raises:
        EvaluationError: `distillmos` is not installed.
    """

    def __init__(self) -> None:
        path = data_file("distillmos", "distillmos", "the MOS predictor", _WEIGHTS)
        state = read_torch_file(path)["model"]
        self._params = {k: jnp.asarray(v) for k, v in state.items() if v.dtype == np.float32}

    def score(self, wave: np.ndarray) -> float:
        """Predicted opinion of a wave [T] at 16 kHz."""
        return float(np.mean([_opinion(self._params, w, "highest") for w in windows(wave)]))

    def scores(
        self, waves: Sequence[np.ndarray], rows: int = 32, precision: str = "highest"
    ) -> list[float]:
        """Predicted opinions of many waves, `rows` windows at once.

        Args:
            precision: of matrix products and convolutions; "default" uses the tensor cores of a
                GPU (TF32).
        """
        owners = [place for place, wave in enumerate(waves) for _ in windows(wave)]
        cut = [window for wave in waves for window in windows(wave)]
        found: list[float] = []
        for first in range(0, len(cut), rows):
            batch = np.zeros((rows, _SAMPLES), np.float32)
            group = cut[first : first + rows]
            batch[: len(group)] = group
            found += np.asarray(_opinions(self._params, batch, precision))[: len(group)].tolist()
        places = np.bincount(owners, minlength=len(waves))
        return (np.bincount(owners, found, len(waves)) / places).tolist()


_WEIGHTS = "weights/distill_mos_v7.pt"


def windows(wave: np.ndarray) -> list[np.ndarray]:
    """Evenly spaced windows [122880] that cover a wave [T], each scaled to a peak of 1."""
    wave = np.pad(wave.astype(np.float32), (0, max(0, _SAMPLES - len(wave))))
    surplus = len(wave) - _SAMPLES
    starts = (np.linspace(0, 1, int(np.ceil(surplus / _MAX_STEP)) + 1) * surplus).astype(int)
    cut = [wave[s : s + _SAMPLES] for s in starts]
    return [w / (np.max(np.abs(w)) + np.float32(1e-8)) for w in cut]


@functools.partial(jax.jit, static_argnums=2)
def _opinion(params: Params, wave: jax.Array, precision: str) -> jax.Array:
    """A window [122880] to its score."""
    with jax.default_matmul_precision(precision):
        x = _features(params, _spectrum(wave))
        x = _batch_norm(params, f"{_HEAD}.norm_input", x)
        x = _batch_norm(params, f"{_HEAD}.transformer.norm", x)
        x = _linear(params, f"{_HEAD}.transformer.linear_proj", x)
        x = x + params[f"{_HEAD}.transformer.position_encoding.pe"][0]
        for layer in range(_LAYERS):
            x = _block(params, f"{_HEAD}.transformer.transformer_encoder.layers.{layer}", x)
        x = _batch_norm(params, f"{_HEAD}.norm_trans", x)
        return 1 + 4 * jax.nn.sigmoid(_pool(params, f"{_HEAD}.pool", x))


@functools.partial(jax.jit, static_argnums=2)
def _opinions(params: Params, waves: jax.Array, precision: str) -> jax.Array:
    """Windows [B, 122880] to their scores [B]."""
    return jax.vmap(lambda wave: _opinion(params, wave, precision))(waves)


def _spectrum(wave: jax.Array) -> jax.Array:
    """Spectrum [frequency, time, 2] with magnitudes raised to the power 0.3."""
    wave = jnp.pad(wave, (_FFT - _HOP) // 2, mode="reflect")
    starts = jnp.arange(0, len(wave) - _FFT + 1, _HOP)
    frames = wave[starts[:, None] + jnp.arange(_FFT)]
    window = 0.5 - 0.5 * jnp.cos(2 * jnp.pi * jnp.arange(_FFT) / _FFT)
    spectrum = jnp.fft.rfft(frames * window).T
    parts = jnp.stack([spectrum.real, spectrum.imag], axis=-1)
    size = jnp.maximum(jnp.sqrt(jnp.sum(parts**2, axis=-1, keepdims=True)), 1e-12)
    return parts * size ** (0.3 - 1)


def _features(params: Params, x: jax.Array) -> jax.Array:
    """Six convolutions: spectrum [F, T, 2] to features [T / 2, C * F']."""
    x = x[None]
    for i in range(_CONVS):
        stride = (2 if i else 1, 2 if i == _CONVS - 1 else 1)
        kernel = jnp.transpose(params[f"cnn.cnn.{2 * i}.weight"], (2, 3, 1, 0))
        x = jax.lax.conv_general_dilated(
            x, kernel, stride, ((0, 0), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.leaky_relu(x + params[f"cnn.cnn.{2 * i}.bias"], 0.1)
    # The channel is the slower half of the flattened axis.
    return jnp.transpose(x[0], (1, 2, 0)).reshape(x.shape[2], -1)


def _block(params: Params, name: str, x: jax.Array) -> jax.Array:
    """A transformer layer (norm after the sum, ReLU) over [T, D]."""
    qkv = x @ params[f"{name}.self_attn.in_proj_weight"].T
    qkv = qkv + params[f"{name}.self_attn.in_proj_bias"]
    q, k, v = (a.reshape(len(x), _HEADS, -1) for a in jnp.split(qkv, 3, axis=-1))
    weights = jax.nn.softmax(jnp.einsum("thd,shd->hts", q, k) / q.shape[-1] ** 0.5, axis=-1)
    mixed = jnp.einsum("hts,shd->thd", weights, v).reshape(x.shape)
    x = _layer_norm(
        params, f"{name}.norm1", x + _linear(params, f"{name}.self_attn.out_proj", mixed)
    )
    inner = jax.nn.relu(_linear(params, f"{name}.linear1", x))
    return _layer_norm(params, f"{name}.norm2", x + _linear(params, f"{name}.linear2", inner))


def _pool(params: Params, name: str, x: jax.Array) -> jax.Array:
    """Attention pooling of [T, D] to a number."""
    inner = jax.nn.relu(_linear(params, f"{name}.linear1", x))
    weights = jax.nn.softmax(_linear(params, f"{name}.linear2", inner), axis=0)
    return _linear(params, f"{name}.linear3", jnp.sum(weights * x, axis=0))[0]


def _linear(params: Params, name: str, x: jax.Array) -> jax.Array:
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def _layer_norm(params: Params, name: str, x: jax.Array) -> jax.Array:
    x = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * params[f"{name}.weight"] + params[f"{name}.bias"]


def _batch_norm(params: Params, name: str, x: jax.Array) -> jax.Array:
    """By the statistics of training, over the last axis."""
    x = (x - params[f"{name}.running_mean"]) * jax.lax.rsqrt(params[f"{name}.running_var"] + 1e-5)
    return x * params[f"{name}.weight"] + params[f"{name}.bias"]
