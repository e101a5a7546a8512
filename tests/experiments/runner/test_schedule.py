"""Processes share the devices: one each, never two that make one piece, and failures stop none."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from experiments.runner import schedule
from experiments.runner.schedule import Work, run_all
from qtts_jax.errors import QTTSError

SLEEP = """
import os, sys, time
out, seconds, status = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
began = time.time(); time.sleep(seconds)
open(out, "w").write(f"{began} {time.time()} {os.environ.get('PLACE')}")
sys.exit(status)
"""


def work(folder, name, needs=(), status=0, seconds=0.3):
    argv = [sys.executable, "-c", SLEEP, str(folder / name), str(seconds), str(status)]
    return Work(name, argv, folder / "logs" / f"{name}.txt", frozenset(needs))


def spans(folder, works):
    found = {}
    for w in works:
        began, ended, place = (folder / w.name).read_text().split()
        found[w.name] = (float(began), float(ended), place)
    return found


def overlap(a, b):
    return a[0] < b[1] and b[0] < a[1]


def test_each_device_has_one_process_and_a_failure_stops_no_other(tmp_path):
    works = [work(tmp_path, f"w{i}", status=int(i == 1)) for i in range(4)]
    statuses = {}
    run_all(works, [{"PLACE": "0"}, {"PLACE": "1"}], lambda w, s: statuses.update({w.name: s}))
    assert statuses == {"w0": 0, "w1": 1, "w2": 0, "w3": 0}
    found = spans(tmp_path, works)
    assert {place for *_, place in found.values()} == {"0", "1"}
    names = list(found)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert found[a][2] != found[b][2] or not overlap(found[a], found[b])
    assert overlap(found["w0"], found["w1"])


def test_two_that_make_one_piece_follow_one_another(tmp_path):
    works = [work(tmp_path, "a", {"x"}), work(tmp_path, "b", {"x"}), work(tmp_path, "c", {"y"})]
    run_all(works, [{"PLACE": "0"}, {"PLACE": "1"}], lambda *_: None)
    found = spans(tmp_path, works)
    assert not overlap(found["a"], found["b"]) and overlap(found["a"], found["c"])


def test_a_finished_piece_is_not_waited_for(tmp_path):
    works = [work(tmp_path, "a", {"x", "y"}, seconds=1.5), work(tmp_path, "b", {"x", "z"})]
    checks = []

    def finished(piece):
        checks.append(piece)
        return len(checks) > 1  # at the first check x is still being made

    run_all(works, [{"PLACE": "0"}, {"PLACE": "1"}], lambda *_: None, finished)
    found = spans(tmp_path, works)
    assert overlap(found["a"], found["b"]) and set(checks) == {"x"}


def test_processes_share_a_gpu_with_a_part_of_its_memory_each(monkeypatch):
    answer = subprocess.CompletedProcess([], 0, stdout="gpu 2")
    monkeypatch.setattr(schedule.subprocess, "run", lambda *_, **__: answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert schedule.devices() == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    found = schedule.devices(3)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in found] == ["0", "1"] * 3
    assert {place["XLA_PYTHON_CLIENT_MEM_FRACTION"] for place in found} == {"0.300"}


def test_processes_share_the_cores_of_a_cpu(tmp_path, monkeypatch):
    answer = subprocess.CompletedProcess([], 0, stdout="cpu 1")
    with monkeypatch.context() as patched:
        patched.setattr(schedule.subprocess, "run", lambda *_, **__: answer)
        patched.setattr(schedule.os, "sched_getaffinity", lambda _: {4, 5, 6, 9, 10})
        assert schedule.devices() == [{}]
        assert [place[schedule.CORES] for place in schedule.devices(2)] == ["4,5", "6,9"]
        assert len(schedule.devices(8)) == 5
    core = min(os.sched_getaffinity(0))
    code = "import os, sys; sys.exit(os.sched_getaffinity(0) != {int(sys.argv[1])})"
    argv = [sys.executable, "-c", code, str(core)]
    statuses = []
    places = [{schedule.CORES: str(core)}]
    run_all(
        [Work("w", argv, tmp_path / "log", frozenset())], places, lambda _, s: statuses.append(s)
    )
    assert statuses == [0]


def test_a_signal_ends_the_processes_and_what_has_not_begun(tmp_path):
    works = [work(tmp_path, "long", seconds=60), work(tmp_path, "next")]
    threading.Timer(0.6, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(SystemExit):
        run_all(works, [{}], lambda *_: None)
    assert not (tmp_path / "long").exists() and not (tmp_path / "next").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_jax_that_does_not_start_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "no_such_backend")
    with pytest.raises(QTTSError, match="JAX does not start on this machine's devices: .*no_such"):
        schedule.devices()
