"""Files appear complete or not at all; leftovers of killed processes are removed."""

import pytest

from qtts_jax.errors import QTTSError
from qtts_jax.io import atomic_files
from tests.support.speech_files import half_written


def test_a_file_takes_its_name_when_it_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    atomic_files.write_whole(path, b"one")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "replace", fail)
    with pytest.raises(QTTSError, match=r"cannot write .*a.bin: .*No space left"):
        atomic_files.write_whole(path, b"two")
    assert path.read_bytes() == b"one" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(QTTSError, match="does not exist; create it first"):
        atomic_files.write_whole(tmp_path / "none" / "a.bin", b"")


def test_only_what_dead_processes_left_is_swept(tmp_path, monkeypatch):
    left = half_written(tmp_path, "a.bin")
    # Of another machine, where a process of this number may well run.
    away = left.name.replace(atomic_files._HOST, f"{int(atomic_files._HOST, 16) ^ 1:04x}")
    others = [tmp_path / name for name in ("a.bin", ".hidden", ".some.partial", away)]
    for path in others:
        path.write_bytes(b"")

    def swept_meanwhile(source, target):
        # Another process of this machine is at work in the same directory.
        assert source.exists() and left.exists()
        atomic_files.sweep(tmp_path)
        assert source.exists() and not left.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic_files.os, "replace", swept_meanwhile)
    with pytest.raises(KeyboardInterrupt):
        atomic_files.write_whole(tmp_path / "b.bin", b"")
    assert sorted(tmp_path.iterdir()) == sorted(others)
