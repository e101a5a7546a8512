"""Speaker similarity: the GE2E voice encoder of Resemblyzer, from its own weights.

Wan et al. 2018 (arXiv:1710.10467); the package `resemblyzer` 0.1.4 carries the trained weights. Its
own code needs torch; this is the same computation (volume to at least -30 dBFS, long silences
cut out by the WebRTC voice activity detector, 40 mel bands, three LSTM layers over windows of
1.6 s, mean of the windows) and agrees with it to float32 rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qtts_jax.dsp.mel import MelConfig, hann_window, mel_filters
from qtts_jax.evaluation.judges.package import data_file, load
from qtts_jax.evaluation.judges.torch_file import read_torch_file

SAMPLE_RATE = 16_000
_MEL = MelConfig(SAMPLE_RATE, n_fft=400, hop=160, win=400, n_mels=40, fmax=SAMPLE_RATE / 2)
_HOP = _MEL.hop
_FRAMES = 160  # of one window, 1.6 s
_SAMPLES = (_FRAMES - 1) * _HOP + _MEL.n_fft  # under the frames of one window
_STEP = round(SAMPLE_RATE / 1.3 / _HOP)  # 1.3 windows a second
_MIN_COVERAGE = 0.75  # of the last window
_ROWS = 512  # windows encoded at once; 2 MB of memory each
_LEVEL = 10 ** (-30 / 20)  # least RMS
_VAD = 480  # samples per decision of the voice detector, 30 ms
_VAD_WIDTH, _VAD_SILENCE = 8, 6  # smoothing and longest silence kept, in such windows
_PURPOSE = "speaker similarity"


class SpeakerJudge:
    """Embeds recordings so that the product of two embeddings is their similarity.

    Raises:
        EvaluationError: `resemblyzer` or `webrtcvad-wheels` is not installed.
    """

    def __init__(self) -> None:
        self._vad = load("_webrtcvad", "webrtcvad-wheels", _PURPOSE)
        path = data_file("resemblyzer", "resemblyzer", _PURPOSE, "pretrained.pt")
        state = read_torch_file(path)["model_state"]
        self._params = {k: jnp.asarray(v) for k, v in state.items() if k[:4] in ("lstm", "line")}

    def embed(self, wave: np.ndarray) -> np.ndarray:
        """The embedding [256] float32, of length 1, of a wave [T] at 16 kHz."""
        return self.embed_all([wave])[0]

    def embed_all(self, waves: Sequence[np.ndarray], threads: int = 1) -> list[np.ndarray]:
        """The embeddings of many waves, whose windows are encoded together.

        Args:
            threads: that look for silence.
        """
        if not waves:
            return []
        if threads == 1:
            cut = list(map(self._windows, waves))
        else:
            with ThreadPoolExecutor(threads) as pool:
                cut = list(pool.map(self._windows, waves))
        windows = np.concatenate(cut)  # [W, N]
        encoded = [_encode(self._params, filled)[:rows] for filled, rows in _groups(windows)]
        ends = np.cumsum([len(own) for own in cut])
        found = np.split(np.concatenate(list(map(np.asarray, encoded))), ends[:-1])
        means = [own.mean(axis=0) for own in found]
        return [mean / np.linalg.norm(mean) for mean in means]

    def _windows(self, wave: np.ndarray) -> np.ndarray:
        """Windows [W, N] float32 of a wave without long silences, frames centred on their hops."""
        wave = _cut_silence(_raise_volume(wave), self._vad)
        starts = [frame * _HOP for frame in window_starts(len(wave))]
        left = _MEL.n_fft // 2
        wave = np.pad(wave, (left, max(0, starts[-1] + _SAMPLES - left - len(wave))))
        return np.stack([wave[start : start + _SAMPLES] for start in starts]).astype(np.float32)

    def similarity(self, wave: np.ndarray, other: np.ndarray) -> float:
        """Cosine similarity of the speakers of two waves [T] at 16 kHz."""
        return float(self.embed(wave) @ self.embed(other))


def window_starts(samples: int) -> list[int]:
    """First mel frames of the windows over a wave of so many samples."""
    frames = int(np.ceil((samples + 1) / _HOP))
    starts = list(range(0, max(1, frames - _FRAMES + _STEP + 1), _STEP))
    coverage = (samples - starts[-1] * _HOP) / (_FRAMES * _HOP)
    if coverage < _MIN_COVERAGE and len(starts) > 1:
        starts.pop()
    return starts


def _groups(windows: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Windows in groups of at most `_ROWS`, filled up to a power of two, and how many are real.

    So few programs are compiled, and memory does not grow with the recordings.
    """
    for first in range(0, len(windows), _ROWS):
        group = windows[first : first + _ROWS]
        rows = 1 << (len(group) - 1).bit_length()
        yield np.pad(group, ((0, rows - len(group)), (0, 0)), mode="edge"), len(group)


def _raise_volume(wave: np.ndarray) -> np.ndarray:
    rms = np.sqrt(np.mean(wave.astype(np.float64) ** 2))
    return wave * (_LEVEL / rms) if 0 < rms < _LEVEL else wave


def _cut_silence(wave: np.ndarray, vad: Any) -> np.ndarray:
    """The wave without the middles of long silences; as it is, if nothing in it is speech."""
    from scipy.ndimage import binary_dilation

    windows = len(wave) // _VAD
    pcm = np.round(np.clip(wave[: windows * _VAD], -1, 1) * 32767).astype(np.int16)
    detector = vad.create()
    vad.init(detector)
    vad.set_mode(detector, 3)
    speech = np.array(
        [
            vad.process(detector, SAMPLE_RATE, pcm[i * _VAD : (i + 1) * _VAD].tobytes(), _VAD)
            for i in range(windows)
        ],
        dtype=float,
    )
    left = (_VAD_WIDTH - 1) // 2
    padded = np.pad(speech, (left, _VAD_WIDTH // 2))
    smooth = np.convolve(padded, np.ones(_VAD_WIDTH) / _VAD_WIDTH, mode="valid")
    keep = binary_dilation(np.round(smooth).astype(bool), np.ones(_VAD_SILENCE + 1))
    kept = wave[: windows * _VAD][np.repeat(keep, _VAD)]
    return kept if len(kept) else wave


@jax.jit
def _encode(params: dict[str, jax.Array], windows: jax.Array) -> jax.Array:
    """Windows [B, N] of samples to embeddings [B, 256] of length 1."""
    places = np.arange(_FRAMES)[:, None] * _HOP + np.arange(_MEL.n_fft)
    spectrum = jnp.fft.rfft(windows[:, places] * hann_window(_MEL), axis=-1)  # [B, T, bins]
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    with jax.default_matmul_precision("highest"):
        x = jnp.swapaxes(power @ mel_filters(_MEL), 0, 1)  # [T, B, 40]
        for layer in range(3):
            x = _lstm(params, layer, x)
        raw = jax.nn.relu(x[-1] @ params["linear.weight"].T + params["linear.bias"])
    return raw / jnp.linalg.norm(raw, axis=-1, keepdims=True)


def _lstm(params: dict[str, jax.Array], layer: int, x: jax.Array) -> jax.Array:
    """One LSTM layer over [T, B, C]; gates in the order input, forget, cell, output."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_in, w_state, b_in, b_state = (params[f"lstm.{name}_l{layer}"] for name in names)
    driven = x @ w_in.T + b_in + b_state
    zeros = jnp.zeros((x.shape[1], w_state.shape[1]), x.dtype)

    def step(
        carry: tuple[jax.Array, jax.Array], drive: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        hidden, cell = carry
        i, f, g, o = jnp.split(drive + hidden @ w_state.T, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    return jax.lax.scan(step, (zeros, zeros), driven)[1]
