"""Tables and pictures say what results hold; intervals cover seeds and clips."""

import json
import sys
from argparse import Namespace

import numpy as np
import pytest

from experiments import run as command
from experiments.runner import results, schedule, table
from experiments.runner.ablation import Ablation
from experiments.runner.intervals import difference, estimate
from experiments.runner.schedule import Work
from experiments.runner.worker import Request
from qtts_jax.errors import ConfigError, QTTSError

ABLATION = Ablation("depth", "How deep?\n\nAnswer: not yet.\n", {"deep": {}, "shallow": {}})


def result(variation, seed, shift=0.0, steps=10):
    rng = np.random.default_rng(seed)
    stoi = {f"clip{i}": [round(0.5 + 0.1 * rng.random() + shift, 4), 1] for i in range(6)}
    training = {"steps": steps, "planned": 10, "seconds": 30, "flops": 2e12, "audio_seconds": 50}
    return {
        "ablation": "depth", "variation": variation, "seed": seed, "scale": "tiny", "key": "k",
        "frame_rate": 12.5, "codebooks": 16, "bit_rate": 1200, "clips_trained_on": 52,
        "machine": {"device": "cpu", "machine": "2 cores, x86_64"},
        "tokenizer": {"parameters": 1000, "stages": [training]},
        "talker": training | {"parameters": 2000, "frames": 700, "clips": 10, "codes": 11200},
        "scores": {
            "scores": {"recordings": {}, "resynthesis": {"stoi": stoi},
                       "talker": {"no_eos": {n: [0, 1] for n in stoi}}},
            "judges": ["stoi", "pesq"], "not_measured": {"pesq": "PESQ needs the package pesq."},
        },
    }  # fmt: skip


def stored(folder, found):
    for r in found:
        path = results.path_of(folder, "tiny", "depth", r["variation"], r["seed"])
        results.write(path, r)
        assert json.loads(path.read_text()) == r
    return results.read(folder, "tiny", "depth", ABLATION.variations)


def test_a_table_names_the_machines_of_training_and_of_scoring():
    here = [result("deep", 0)]
    text = table.markdown(ABLATION, "tiny", here, {}, "")
    assert "held-out clips. Machine: cpu, 2 cores, x86_64." in text
    here[0]["talker"]["machine"] = {"device": "GPU", "machine": "16 cores, x86_64"}
    text = table.markdown(ABLATION, "tiny", here, {}, "")
    assert "Trained on GPU, 16 cores, x86_64; scored on cpu, 2 cores, x86_64." in text


def test_tables_of_results_that_exist(tmp_path):
    found = stored(tmp_path, [result("shallow", 1), result("deep", 1), result("deep", 0)])
    assert [(r["variation"], r["seed"]) for r in found] == [
        ("deep", 0),
        ("deep", 1),
        ("shallow", 1),
    ]
    failures = {("shallow", 0): "talker: out of memory"}
    text = table.markdown(ABLATION, "tiny", found, failures, "python -m experiments.run depth")
    assert "# How deep?" in text and table.TINY_NOTE in text
    assert "| deep (2) | 12.5 | 16 | 1,200 |" in text and "| shallow (1) |" in text
    whole = estimate([r["scores"]["scores"]["resynthesis"]["stoi"] for r in found[:2]])
    assert f"| deep | {whole.value:.3f} [{whole.low:.3f}, {whole.high:.3f}] | 0.0 [" in text
    assert "| shallow | 0.000 [0.000, 0.000] | 0.0 [" in text
    assert "Without a result yet: shallow with seed 0." in text
    assert "Failed: shallow, seed 0: talker: out of memory" in text
    assert "PESQ was not measured: its judge is not installed" in text
    assert "WER and SIM were not measured (`--judges`)" in text
    assert "6 held-out clips. Machine: cpu, 2 cores, x86_64." in text


def test_variations_without_results_and_early_ends_are_named(tmp_path):
    text = table.markdown(ABLATION, "nano", stored(tmp_path, [result("deep", 0, steps=4)]), {}, "")
    assert "Without a result yet: shallow." in text and table.TINY_NOTE not in text
    assert "Ended by the time limit before the last step, so budgets differ: deep, seed 0." in text


def test_intervals_cover_seeds_and_clips_and_differences_are_paired():
    rng = np.random.default_rng(0)
    clips = 3 + rng.random(40)
    base = [{f"c{i}": [x + s, 1] for i, x in enumerate(clips)} for s in (0.0, 0.1, 0.2)]
    better = [{name: [x - 0.05, 1] for name, (x, _) in seed.items()} for seed in base]
    one, all_seeds = estimate(base[:1]), estimate(base)
    assert one.low < one.value < one.high and all_seeds.clips == 40
    assert all_seeds.value == pytest.approx(one.value + 0.1)
    assert all_seeds.high - all_seeds.low > one.high - one.low
    paired = difference(better, base)
    np.testing.assert_allclose([paired.value, paired.low, paired.high], -0.05, rtol=1e-9)
    none = estimate([{f"c{i}": [0, 1] for i in range(12)}])
    assert none.value == none.low == 0 and 0.2 < none.high < 0.3
    assert estimate([]) is None and difference(better[:2], base) is None


WRITE = "import pathlib, shutil, sys; shutil.copyfile(sys.argv[1], sys.argv[2])"
FAIL = "import sys; print('no memory left'); sys.exit(1)"


def test_a_failed_run_is_reported_and_loses_no_other(tmp_path, monkeypatch, capsys):
    args = Namespace(out=tmp_path / "out", scale="tiny", seeds=1, processes=1)
    folder, works, requests = tmp_path / "results", {}, {}
    for name, script in (("shallow", FAIL), ("deep", WRITE)):
        given, wanted = tmp_path / f"{name}.json", results.path_of(folder, "tiny", "depth", name, 0)
        results.write(given, result(name, 0))
        wanted.parent.mkdir(parents=True, exist_ok=True)
        works["depth", name, 0] = Work(
            f"{name}, seed 0", [sys.executable, "-c", script, str(given), str(wanted)],
            tmp_path / f"{name}.txt", frozenset(),
        )  # fmt: skip
        requests["depth", name, 0] = Request(
            "depth", name, 0, "tiny", "", "", None, (), None, str(wanted),
            str(tmp_path / f"{name}.failure.json"),
        )  # fmt: skip
    failures = {("depth", "deep", 1): "too wide"}
    monkeypatch.setattr(command, "planned", lambda *_: (works, requests, failures))
    monkeypatch.setattr(schedule, "devices", lambda _: [{}])
    with pytest.raises(QTTSError, match="2 of 2 runs failed; .* repeats these alone"):
        command.run(args, [ABLATION], folder)
    text = (folder / "tiny/depth.md").read_text()
    assert "| deep (1) |" in text and (folder / "tiny/depth.png").stat().st_size > 10_000
    log = tmp_path / "shallow.txt"
    assert f"Failed: shallow, seed 0: the process ended with status 1; see {log}" in text
    assert "Failed: deep, seed 1: too wide" in text and log.read_text() == "no memory left\n"


def test_the_reason_of_a_failure_is_what_the_process_wrote_or_its_signal(tmp_path):
    path = tmp_path / "failure.json"
    request = Request("", "", 0, "", "", "", None, (), None, "", str(path))
    log = tmp_path / "log.txt"
    assert "ended by SIGKILL (out of memory" in command.reason(request, -9, log)
    path.write_text(json.dumps({"piece": "talker", "reason": "no\nmemory"}))
    assert command.reason(request, 1, log) == "talker: no memory"


def test_a_result_of_a_copied_tree_has_the_commit_of_the_environment(tmp_path, monkeypatch):
    assert len(results.machine()["commit"].rstrip("+")) == 40
    monkeypatch.setattr(results.command, "ROOT", tmp_path)
    assert results.machine()["commit"] is None
    monkeypatch.setenv("QTTS_COMMIT", "abc")
    assert results.machine()["commit"] == "abc"


def test_two_commands_do_not_share_a_folder(tmp_path):
    with (
        command._alone(tmp_path),
        pytest.raises(ConfigError, match="another ablation runs in"),
        command._alone(tmp_path),
    ):
        pass
