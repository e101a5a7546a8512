"""CUDA sources: they compile for every released size, and what is compiled is kept."""

from dataclasses import replace

import pytest

from qtts_jax import compilation_cache
from qtts_jax.configs.presets import tts_12hz, tts_25hz
from qtts_jax.layers.cuda import nvrtc
from qtts_jax.layers.cuda.launch import Kernel
from qtts_jax.models import code_predictor_kernel, talker_kernel

needs_nvrtc = pytest.mark.skipif(nvrtc.shared_library() is None, reason="needs nvidia-cuda-nvrtc")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(compilation_cache.SWITCH, str(tmp_path))
    nvrtc.to_ptx.cache_clear()
    return tmp_path


@needs_nvrtc
@pytest.mark.parametrize("size", ["0b6", "1b7"])
def test_talkers_compile(size, folder):
    c = tts_12hz(size, "base").talker.transformer
    assert ".entry talker(" in talker_kernel.kernel(c).ptx()
    assert tts_25hz(size, "base").talker.transformer.width == c.width


@needs_nvrtc
def test_code_predictor_compiles_and_is_kept(folder, monkeypatch):
    c = tts_12hz("0b6", "base").talker.code_predictor
    kernel = code_predictor_kernel.kernel(c)
    ptx = kernel.ptx()
    assert ".entry code_predictor(" in ptx and ".version 8.0\n" in ptx
    [kept] = folder.iterdir()
    assert kept.read_text() == ptx
    nvrtc.to_ptx.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(nvrtc, "_compiled", None)  # a second process compiles nothing
        assert kernel.ptx() == ptx
    # Another setting is another file.
    replace(kernel, defines=(("RMS_EPS", "1e-5f"),)).ptx()
    assert len(list(folder.iterdir())) == 2


@needs_nvrtc
def test_a_fault_in_a_source_is_shown(folder):
    with pytest.raises(RuntimeError, match=r"talker\.cu.*WIDTH"):
        Kernel("talker.cu", 128, 544, 1, 1).ptx()


def test_without_nvrtc(folder, monkeypatch):
    monkeypatch.setattr(nvrtc, "shared_library", lambda: None)
    with pytest.raises(RuntimeError, match="not installed"):
        Kernel("talker.cu", 128, 544, 1, 1).ptx()
