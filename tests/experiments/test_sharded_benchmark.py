"""The benchmark of meshes: what it measures, what its table says, and that it runs."""

import argparse
import dataclasses
import json
import os
import subprocess
import sys

import pytest

from experiments.bench.sharded import PARTS, Task, render, tasks, write_row
from tests.support.helpers import ROOT


def options(**changed):
    known = {"parts": PARTS, "devices": [1, 2, 4, 8], "meshes": None, "batches": [16]}
    return argparse.Namespace(**known | {"totals": [32], "train_rows": 2, "weak": False} | changed)


def test_every_mesh_of_the_devices_there_are_is_measured():
    found = tasks(options(), 4)
    decoded = {(t.data, t.model, t.rows) for t in found if t.part == "decode"}
    assert decoded == {
        *((1, 1, rows) for rows in (1, 16, 32)),
        *((2, 1, 32), (4, 1, 32), (4, 1, 64)),
        *((1, 2, 1), (1, 4, 1), (2, 2, 2)),
    }
    trained = {(t.data, t.fsdp, t.rows) for t in found if t.part == "train"}
    assert {(1, 1, 2), (1, 1, 8), (4, 1, 8), (1, 4, 8), (2, 1, 4), (1, 2, 4)} <= trained
    assert [t.devices for t in found] == sorted(t.devices for t in found)
    assert not any(t.devices == 1 and t.part == "collectives" for t in found)


def test_parts_and_meshes_are_selected():
    found = tasks(options(parts=["codes"], meshes=["4x1"]), 8)
    assert found == [Task("codes", 4, 1, 5)]


def test_weak_scaling_alone_has_as_many_rows_on_every_device():
    found = tasks(options(parts=["decode", "train"], weak=True, meshes=["1x1", "2x1", "4x1"]), 4)
    decoded = [t for t in found if t.part == "decode"]
    assert [(t.data, t.rows) for t in decoded] == [(1, 16), (2, 32), (4, 64)]
    trained = {(t.data, t.fsdp, t.rows) for t in found if t.part == "train"}
    assert trained == {(1, 1, 2), (2, 1, 4), (1, 2, 4), (4, 1, 8), (1, 4, 8)}


def test_commands_that_run_at_once_write_one_file(tmp_path):
    path, header = tmp_path / "results/bench_sharded.x.json", {"device": "X", "devices": 4}

    def row(devices, speed):
        return {"task": dataclasses.asdict(Task("decode", devices, 1, devices)), "ms": speed}

    for each in (row(4, 1.0), row(1, 2.0), row(4, 3.0)):
        rows = write_row(path, header, each)
    assert rows == [row(1, 2.0), row(4, 3.0)]
    assert json.loads(path.read_text()) == header | {"rows": rows}
    noted = row(1, 4.0) | {"note": "beside others"}
    assert write_row(path, header | {"devices": 2}, row(1, 4.0), "beside others") == [noted]
    settings = {"versions": {"jax": "1"}, "settings": {}}
    result = json.loads(path.read_text()) | settings
    assert "4 ms; beside others" in render({"bench_sharded.x.json": result})


def test_table_gives_weak_and_strong_efficiency():
    def row(speed, *task):
        figures = {"ms_per_frame": 1.0, "audio_s_per_s": speed}
        return {"task": dataclasses.asdict(Task("decode", *task)), **figures}

    rows = [row(100.0, 1, 1, 8), row(150.0, 1, 1, 32), row(380.0, 4, 1, 32)]
    rows.append({"task": dataclasses.asdict(Task("train", 1, 1, 2)), "error": "too little memory"})
    result = {"device": "X", "devices": 4, "versions": {"jax": "1"}, "settings": {}, "rows": rows}
    text = render({"bench_sharded.x.json": result})
    assert "| decode | 4x1 | 32 | 1 ms a frame, 380 s of audio a second | 0.95 | 0.63 |" in text
    assert "| train | 1x1 | 2 | too little memory |  |  |" in text


@pytest.mark.by_hand
def test_virtual_devices_give_the_codes_of_one_device(tmp_path):
    out = tmp_path / "bench_sharded.json"
    chosen = ["--cpu-devices", "2", "--size", "tiny", "--devices", "2", "--meshes", "2x1"]
    chosen += ["--parts", "codes,train", "--positions", "64", "--steps", "1", "--train-rows", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.bench.sharded", *chosen, "--out", out],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = {(r["task"]["part"], r["task"]["fsdp"]): r for r in json.loads(out.read_text())["rows"]}
    assert found["codes", 1]["differing"] == 0
    assert found["train", 1]["step_s"] > 0 and found["train", 2]["step_s"] > 0
