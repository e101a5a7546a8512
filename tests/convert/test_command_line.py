"""`python -m convert`: what it prints, and its exit status."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import convert.to_orbax
from convert.__main__ import main

ROOT = Path(__file__).parents[2]


def test_converts_and_goes_back(released, tmp_path, capsys):
    source = released / "voice_design"
    assert main([str(source), str(tmp_path / "orbax")]) == 0
    assert f"wrote {tmp_path / 'orbax'}" in capsys.readouterr().out
    assert main(["--to-torch", str(tmp_path / "orbax"), str(tmp_path / "torch")]) == 0
    assert (tmp_path / "torch" / "model.safetensors").is_file()
    assert (tmp_path / "torch" / "speech_tokenizer" / "model.safetensors").is_file()


def test_existing_destination_needs_overwrite(released, tmp_path, capsys):
    source = str(released / "base" / "speech_tokenizer")
    tmp_path.joinpath("x").mkdir()
    assert main([source, str(tmp_path / "x")]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["--overwrite", source, str(tmp_path / "x")]) == 0


def test_dry_run_prints_the_mapping_and_writes_nothing(released, tmp_path, capsys):
    assert main(["--dry-run", str(released / "base"), str(tmp_path / "x")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "  talker.model.layers.0.self_attn.k_proj.weight [32, 96] -> "
        "talker/transformer/layers/0/attention/qkv/kernel[:, -2:-1]"
    ) in lines
    assert "  decoder.pre_conv.conv.bias [48] -> decoder/pre_conv/bias" in lines
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_the_way_back(released, tmp_path, capsys):
    assert main([str(released / "base"), str(tmp_path / "x")]) == 0
    capsys.readouterr()
    assert main(["--dry-run", "--to-torch", str(tmp_path / "x")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  talker.code_predictor.lm_head.14.weight [64, 64] <- code_predictor/heads[14]" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_fault_is_one_line_and_status_one(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "x")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: there is no folder")
    assert error.count("\n") == 1


def test_destination_is_needed(released, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(released / "base")])
    assert stop.value.code == 2
    assert "a destination is needed" in capsys.readouterr().err


def test_interrupt_is_one_line_and_status_130(released, tmp_path, capsys, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert.to_orbax, "save_params", interrupt)
    assert main([str(released / "base"), str(tmp_path / "x")]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_signal_during_conversion_leaves_nothing(released, tmp_path, kind):
    """A real process, stopped while it writes parameters."""
    slow = (
        "import runpy, signal, sys, time, convert.safetensors_stream as s\n"
        # What runs in the background of a script is told to ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "read = s.Tensor.read_into\n"
        "s.Tensor.read_into = lambda *a: (time.sleep(0.2), read(*a))\n"
        "sys.argv[0] = 'convert'\n"
        "runpy.run_module('convert', run_name='__main__', alter_sys=True)\n"
    )
    destination = tmp_path / "work" / "x"
    process = subprocess.Popen(
        [sys.executable, "-c", slow, str(released / "base"), str(destination)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.time() + 120
    while not list(tmp_path.glob("work/x.partial*/params.partial*")):
        assert process.poll() is None, process.stderr.read()
        assert time.time() < deadline, "the conversion did not start"
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(kind)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "interrupted; nothing was kept" in error
    assert list((tmp_path / "work").iterdir()) == []
