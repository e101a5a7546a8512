"""The decoder's voice: reference mel, x-vector through ONNX, files, and what can be wrong."""

import sys

import numpy as np
import pytest

from qtts_jax.dsp.kaldi_fbank import fbank
from qtts_jax.dsp.sox_norm import normalize_peak
from qtts_jax.errors import AudioError, CheckpointError, QTTSError, RequestError
from qtts_jax.speech_tokenizer import reference_voice
from qtts_jax.speech_tokenizer.reference_voice import (
    ReferenceVoice,
    ReferenceVoiceExtractor,
    reference_mel,
)
from qtts_jax.speech_tokenizer.voice_files import read_array, read_voices, write_voices
from tests.support import tiny_onnx
from tests.support.helpers import assert_close

MATRIX = np.random.default_rng(0).standard_normal((80, 20)).astype(np.float32)


@pytest.fixture(scope="module")
def wave(golden, golden_index, detweights):
    n = int(golden("frontends")["n"][0])
    return detweights.wave(golden_index["seed"], "front/w16k", n, 16000)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "campplus.onnx").write_bytes(tiny_onnx.stand_in(MATRIX))
    return tmp_path


def test_reference_mel_is_the_official_one(golden, wave):
    assert_close(reference_mel(wave, 80), golden("frontends")["bigvgan_mel"])


def test_reference_mels_of_like_lengths_share_a_program(wave):
    reference_mel(wave, 80)
    programs = reference_voice._log_mel._cache_size()
    assert len(reference_mel(wave[:7321], 80)) == 7321 // 160
    assert reference_voice._log_mel._cache_size() == programs


def test_a_voice_is_the_network_over_mean_free_features_and_a_mel(folder, wave):
    pytest.importorskip("onnxruntime")
    voice = ReferenceVoiceExtractor(folder, 80)((wave, 16000))
    loud = normalize_peak(wave)
    features = fbank(loud)
    features = features - features.mean(axis=0)
    np.testing.assert_allclose(
        voice.xvector, tiny_onnx.expected(MATRIX, features), rtol=1e-4, atol=1e-6
    )
    assert np.linalg.norm(voice.xvector) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(voice.ref_mel, reference_mel(loud, 80))
    assert voice.xvector.dtype == voice.ref_mel.dtype == np.float32


def test_loudness_of_the_recording_does_not_matter(folder, wave):
    pytest.importorskip("onnxruntime")
    extract = ReferenceVoiceExtractor(folder, 80)
    quiet, loud = extract((wave * 0.25, 16000)), extract((wave, 16000))
    np.testing.assert_allclose(quiet.xvector, loud.xvector, atol=1e-5)
    np.testing.assert_allclose(quiet.ref_mel, loud.ref_mel, atol=1e-3)


def test_other_rates_are_resampled(folder):
    pytest.importorskip("onnxruntime")
    t = np.arange(24000) / 24000
    tone = (0.3 * np.sin(2 * np.pi * 220 * t)).astype(np.float32)
    assert ReferenceVoiceExtractor(folder, 80)((tone, 24000)).ref_mel.shape == (100, 80)


def test_a_checkpoint_without_the_network_says_so(tmp_path, wave):
    with pytest.raises(CheckpointError, match=r"campplus\.onnx is not there.*x-vector"):
        ReferenceVoiceExtractor(tmp_path, 80)((wave, 16000))


def test_a_broken_network_is_refused(tmp_path, wave):
    pytest.importorskip("onnxruntime")
    (tmp_path / "campplus.onnx").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match="not a usable ONNX model"):
        ReferenceVoiceExtractor(tmp_path, 80)((wave, 16000))


def test_without_onnxruntime_the_extra_is_named(folder, wave, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RequestError, match=r"pip install 'qtts_jax\[xvector\]'"):
        ReferenceVoiceExtractor(folder, 80)((wave, 16000))


def test_too_short_recordings_are_refused(folder, wave):
    pytest.importorskip("onnxruntime")
    with pytest.raises(AudioError, match="ref is too short"):
        ReferenceVoiceExtractor(folder, 80)((wave[:432], 16000), "ref")
    with pytest.raises(AudioError, match="at least 433 samples"):
        reference_mel(wave[:432], 80)


def voice(seed):
    rng = np.random.default_rng(seed)
    return ReferenceVoice(
        rng.standard_normal(20).astype(np.float32),
        rng.standard_normal((seed + 9, 80)).astype(np.float32),
    )


def test_named_voices_survive_their_file(tmp_path):
    assert read_voices(tmp_path) == {}
    voices = {"ryan": voice(1), "Uncle.Fu": voice(2)}
    write_voices(tmp_path, voices)
    back = read_voices(tmp_path)
    assert list(back) == ["ryan", "uncle.fu"]
    for written, read in zip(voices.values(), back.values(), strict=True):
        np.testing.assert_array_equal(written.xvector, read.xvector)
        np.testing.assert_array_equal(written.ref_mel, read.ref_mel)
    with pytest.raises(QTTSError, match="does not exist"):
        write_voices(tmp_path / "none", voices)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ryan.xvector": np.zeros(3)}, r"lacks the array 'ryan\.ref_mel'"),
        (
            {"a.xvector": np.zeros(3), "a.ref_mel": np.zeros((4, 2)), "a.other": np.zeros(1)},
            "a.other, which belong to no voice",
        ),
    ],
)
def test_incomplete_voices_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "voices.npz", **arrays)
    with pytest.raises(CheckpointError, match=message):
        read_voices(tmp_path)


def test_damaged_files_are_refused(tmp_path):
    (tmp_path / "voices.npz").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a readable"):
        read_voices(tmp_path)
    for name in ("absent.npy", "voices.npz"):
        with pytest.raises(RequestError, match="cannot read the noise from"):
            read_array(tmp_path / name, "the noise")
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(RequestError, match="several arrays"):
        read_array(tmp_path / "two.npz", "the noise")
