"""The speaker encoder's log-mel: against the official values, exact arithmetic and itself alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.tts import SpeakerEncoderConfig
from qtts_jax.dsp.mel import MelConfig, log_mel, mel_filters
from qtts_jax.errors import AudioError, ConfigError
from qtts_jax.tts.speaker_embedder import SpeakerEmbedder
from tests.golden_tools import detweights
from tests.support.helpers import GOLDEN

CONFIG = MelConfig()


@pytest.fixture(scope="module")
def golden_waves():
    """[(wave, official mel [frames, M])]."""
    seed = json.loads((GOLDEN / "index.json").read_text())["seed"]
    arrays = np.load(GOLDEN / "speaker_encoder.npz")
    lengths = [int(arrays[f"n{i}"][0]) for i in range(2)]
    return [
        (detweights.wave(seed, f"spk/wave{i}", n, 24000), arrays[f"mel{i}"])
        for i, n in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(log_mel, static_argnums=1)


def exact_mel(wave, config):
    """The formula in float64, with plain loops for padding and framing."""
    padded = np.pad(wave.astype(np.float64), config.pad, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.win) / config.win)
    left = (config.n_fft - config.win) // 2
    rows = []
    for start in range(0, len(padded) - config.n_fft + 1, config.hop):
        frame = padded[start + left : start + left + config.win] * hann
        spectrum = np.fft.rfft(np.pad(frame, (left, config.n_fft - config.win - left)))
        rows.append(np.sqrt(np.abs(spectrum) ** 2 + config.power_floor))
    mel = np.array(rows) @ mel_filters(config).astype(np.float64)
    return np.log(np.maximum(mel, config.mel_floor))


def test_mel_equals_official(golden_waves, compiled):
    for wave, official in golden_waves:
        mel, frames = compiled(wave, CONFIG)
        assert mel.shape == official.shape
        assert int(frames) == len(official)
        assert mel.dtype == jnp.float32
        # Quiet frames carry the rounding of a float32 transform, 1e-4 in the official values too.
        assert np.abs(mel - official).max() < 1e-4 * np.abs(official).max()


def test_mel_equals_exact_arithmetic(golden_waves, compiled):
    for wave, _ in golden_waves:
        mel, _ = compiled(wave, CONFIG)
        np.testing.assert_allclose(mel, exact_mel(wave, CONFIG), atol=1e-4)


def test_other_sizes_follow_the_formula():
    config = MelConfig(sample_rate=16000, n_fft=512, hop=160, win=400, n_mels=40, fmax=7000.0)
    wave = np.random.default_rng(1).uniform(-1, 1, 3000).astype(np.float32)
    mel, frames = log_mel(jnp.asarray(wave), config)
    expected = exact_mel(wave, config)
    assert mel.shape == expected.shape == (int(frames), 40)
    np.testing.assert_allclose(mel, expected, atol=1e-4)


@pytest.mark.parametrize("samples", [385, 511, 512, 513, 1023, 1024, 5000])
def test_frame_count_is_whole_hops(samples):
    mel, frames = jax.eval_shape(lambda w: log_mel(w), jax.ShapeDtypeStruct((samples,), "float32"))
    assert mel.shape == (samples // 256, 128)
    assert frames.shape == ()
    assert CONFIG.frames(samples) == samples // 256


def test_padded_rows_give_the_frames_they_give_alone(golden_waves, compiled):
    waves = [wave for wave, _ in golden_waves] + [golden_waves[0][0][:385]]
    lengths = np.array([len(wave) for wave in waves])
    batch = np.full((len(waves), lengths.max() + 700), np.nan, np.float32)
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = wave
    mel, frames = compiled(batch, CONFIG, lengths)
    for row, count, wave in zip(np.asarray(mel), frames, waves, strict=True):
        alone, alone_count = log_mel(jnp.asarray(wave))
        assert int(count) == int(alone_count)
        np.testing.assert_allclose(row[:count], alone, atol=2e-6)
        assert not row[count:].any()


def test_lengths_are_not_compiled_in(golden_waves):
    traces = []

    @jax.jit
    def counted(wave, lengths):
        traces.append(wave.shape)
        return log_mel(wave, CONFIG, lengths)

    batch = np.stack([golden_waves[0][0][:2000]] * 2)
    counted(batch, np.array([2000, 1000]))
    counted(batch, np.array([400, 1999]))
    assert len(traces) == 1


def test_bfloat16_wave_is_analysed_in_float32(golden_waves):
    wave = jnp.asarray(golden_waves[1][0], jnp.bfloat16)
    mel, _ = log_mel(wave)
    assert mel.dtype == jnp.float32
    np.testing.assert_allclose(mel, log_mel(wave.astype(jnp.float32))[0], atol=1e-6)


def test_too_short_wave_names_the_length_needed():
    with pytest.raises(AudioError, match="at least 385 samples"):
        log_mel(jnp.zeros(384))


def test_window_longer_than_the_transform_is_refused():
    with pytest.raises(ConfigError, match="win"):
        MelConfig(win=2048)


def test_a_rate_that_lacks_the_highest_bins_is_refused():
    with pytest.raises(ConfigError, match="at least 24000 Hz, not 16000"):
        SpeakerEmbedder(SpeakerEncoderConfig(embedding_dim=4, sample_rate=16000), {})
    assert MelConfig(sample_rate=24000).fmax == 12000


@pytest.mark.parametrize(
    ("rate", "n_fft", "mels", "fmin"),
    [(24000, 1024, 128, 0), (24000, 64, 10, 0), (16000, 400, 80, 20)],
)
def test_filters_are_those_of_librosa(rate, n_fft, mels, fmin):
    librosa = pytest.importorskip("librosa")
    config = MelConfig(rate, n_fft, n_fft // 4, n_fft, mels, fmin, rate / 2)
    expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=mels, fmin=fmin, fmax=rate / 2)
    np.testing.assert_array_equal(mel_filters(config), expected.T)
