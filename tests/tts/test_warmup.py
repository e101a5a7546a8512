"""Warming up leaves nothing to compile for later requests, and the command says what it does."""

import shutil

import jax
import numpy as np
import pytest

from qtts_jax.cli.main import main
from qtts_jax.speech_tokenizer.stream_12hz import SpeechStream12Hz
from qtts_jax.tts import warmup
from qtts_jax.tts.warmup import warm_up


@pytest.fixture
def compiled():
    """Names of the programs that JAX compiles or fetches from the cache, as it does."""
    names = []

    def on_duration(event, _, fun_name=None, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    yield names
    jax.monitoring.unregister_event_duration_listener(on_duration)


def test_warmed_up_requests_compile_nothing(tts, compiled, monkeypatch, capsys):
    monkeypatch.setattr(warmup, "PROMPTS", (32,))
    speaker = tts("custom_voice")
    warm_up(speaker, batch_size=2, seconds=1.5)
    assert "compiling" in capsys.readouterr().err
    compiled.clear()
    few = {"max_new_tokens": 9, "seed": 3}
    name = speaker.supported_speakers[-1]
    for text in ("Another text.", iter(["Another ", "text ", "in ", "pieces."])):
        assert sum(map(len, speaker.stream_custom_voice(text, name, **few)))
    waves, _ = speaker.generate_custom_voice(["Alone."], name, "english", **few)
    assert len(waves[0])
    waves, _ = speaker.generate_custom_voice(["Two", "of them."], name, **few)
    assert len(waves) == 2
    speaker.speech_tokenizer.decode(np.ones((16, 16), np.int32))
    assert compiled == []
    # The listener does notice a program.
    jax.jit(lambda x: x * 3.125)(1.0)
    assert compiled


@pytest.mark.slow
@pytest.mark.parametrize("network", [True, False])
def test_25hz_base_checkpoints_warm_up(converted_25hz, tmp_path, monkeypatch, capsys, network):
    """Clones bring the voice of their decoder: computed where CAM++ is there, else a stand-in."""
    if network:
        pytest.importorskip("onnxruntime")
    folder = shutil.copytree(converted_25hz("base"), tmp_path / "base")
    if not network:
        (folder / "speech_tokenizer" / "campplus.onnx").unlink()
    monkeypatch.setattr(warmup, "PROMPTS", (32,))
    monkeypatch.setattr(warmup, "RECORDINGS", (0.5,))
    options = ["--dtype", "float32", "--batch-size", "1", "--seconds", "1"]
    assert main(["warmup", str(folder), *options]) == 0
    assert "kinds of request are ready" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["custom_voice", "voice_design", "base"])
def test_texts_reach_every_prompt_size(tts, kind):
    speaker = warmup._Speaker(tts(kind))
    for size in warmup.PROMPTS[1:]:
        assert size // 2 < speaker._positions(speaker.text(size)) <= size


@pytest.mark.slow
def test_longer_streams_go_through_every_cache_size(tts, monkeypatch):
    """Growth is the only thing that a long stream adds, so it is what `long_stream` must reach."""
    seen = []
    start = SpeechStream12Hz.__init__

    def spy(self, *arguments):
        start(self, *arguments)
        advance = self.advance

        def watched(frames):
            seen.append((self.session.capacity, frames))
            return advance(frames)

        self.advance = watched

    monkeypatch.setattr(SpeechStream12Hz, "__init__", spy)
    speaker = tts("custom_voice")
    warmup._Speaker(speaker).long_stream(300)
    sizes = {capacity for capacity, _ in seen}
    assert sizes and min(sizes) >= 300
    for size in sizes:
        assert [f for c, f in seen if c == size] == list(speaker.speech_tokenizer.first_chunks)


def test_the_command_takes_its_model_in_both_places(converted, monkeypatch, capsys, tmp_path):
    calls = []
    monkeypatch.setattr(warmup, "warm_up", lambda *args: calls.append(args) or 7)
    model = str(converted("custom_voice"))
    options = ["--dtype", "float32", "--compile-cache", str(tmp_path / "cache")]
    assert main(["warmup", model, "--batch-size", "3", *options]) == 0
    assert main(["warmup", "--model", model, "--seconds", "9", *options]) == 0
    assert [args[1:] for args in calls] == [(3, 80), (8, 9)]
    assert all(args[0].mode == "custom_voice" for args in calls)
    kept = jax.config.jax_compilation_cache_dir  # of these tests; it comes before the option
    assert f"7 kinds of request are ready in {kept}" in capsys.readouterr().err


def test_a_missing_model_is_one_line(tmp_path, capsys):
    assert main(["warmup", str(tmp_path / "none")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("qtts: ")
