"""Compiled programs are kept for later processes wherever a model is loaded or trained."""

import subprocess
import sys

import jax
import pytest

from qtts_jax import SpeechTokenizer, compilation_cache
from qtts_jax.cli.main import main
from qtts_jax.training import trainer
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.helpers import virtual_devices


@pytest.fixture
def unset(monkeypatch):
    """JAX without a configured cache, as in a new process of a user."""
    options = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in options}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    jax.config.update(options[0], None)
    jax.config.update(options[1], 1.0)
    yield lambda: jax.config.jax_compilation_cache_dir
    for name, value in before.items():
        jax.config.update(name, value)


def test_loading_turns_the_cache_on(unset, converted, monkeypatch, tmp_path):
    monkeypatch.setenv(compilation_cache.SWITCH, str(tmp_path / "xla"))
    SpeechTokenizer.from_pretrained(converted("base"))
    assert unset() == str(tmp_path / "xla")
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0


def test_the_folder_of_the_command_line_is_the_default(monkeypatch):
    monkeypatch.delenv(compilation_cache.SWITCH, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(compilation_cache.directory()) == "/home/someone/.cache/qtts_jax/xla"


@pytest.mark.parametrize("word", ["off", "OFF", "0", "false"])
def test_one_switch_turns_it_off(unset, monkeypatch, word):
    monkeypatch.setenv(compilation_cache.SWITCH, word)
    assert compilation_cache.enable() is None and unset() is None


def test_a_trainer_turns_it_on(unset, monkeypatch, tmp_path):
    monkeypatch.setenv(compilation_cache.SWITCH, str(tmp_path))
    monkeypatch.setattr(trainer, "TrainingMesh", lambda _: 1 / 0)
    config = TrainerConfig(steps=1, optimizers={})
    with pytest.raises(ZeroDivisionError):
        trainer.Trainer(None, None, config, tmp_path)
    assert unset() == str(tmp_path)


def test_the_configuration_of_jax_comes_first(unset, monkeypatch, tmp_path):
    monkeypatch.setenv(compilation_cache.SWITCH, str(tmp_path / "ours"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    assert compilation_cache.enable() == tmp_path / "theirs"
    assert unset() == str(tmp_path / "theirs") and not (tmp_path / "ours").exists()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # a user's way to have none
    assert compilation_cache.enable() is None and unset() is None


def test_several_devices_of_a_cpu_have_none(unset, monkeypatch, tmp_path):
    monkeypatch.setenv(compilation_cache.SWITCH, str(tmp_path))
    monkeypatch.setattr(jax, "local_device_count", lambda: 8)
    assert compilation_cache.enable() is None and unset() is None


def test_a_folder_that_cannot_be_made_is_a_note(unset, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(compilation_cache.SWITCH, str(tmp_path / "file" / "xla"))
    with pytest.warns(UserWarning, match="cannot be kept in .*QTTS_COMPILATION_CACHE"):
        assert compilation_cache.enable() is None
    assert unset() is None


def test_the_option_of_the_command_line(unset, converted, monkeypatch, tmp_path):
    monkeypatch.setenv(compilation_cache.SWITCH, "off")
    option = ["--compile-cache", str(tmp_path / "xla")]
    assert main(["info", "--model", str(converted("base")), *option]) == 0
    assert unset() == str(tmp_path / "xla")


def test_programs_are_found_by_another_process(tmp_path):
    """And importing the package alone sets nothing."""
    script = (
        "import jax, qtts_jax, qtts_jax.compilation_cache as c, jax.monitoring as m\n"
        "hits = []\n"
        "m.register_event_listener(lambda e, **_: hits.append(e) if 'cache_hit' in e else None)\n"
        "jax.jit(lambda x: x + 1)(1.0)\n"
        "assert jax.config.jax_compilation_cache_dir is None\n"
        "c.enable()\n"
        "jax.jit(lambda x: x * 3 + 2)(1.0)\n"
        "print(len(hits))"
    )
    environment = virtual_devices(1) | {compilation_cache.SWITCH: str(tmp_path)}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    environment.pop("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", None)

    def hits():
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return int(done.stdout)

    assert hits() == 0 and any(tmp_path.iterdir())
    assert hits() >= 1
