"""The table of post-training: seeds of a prompt together, ratios, faults; a run of everything."""

import json
import sys

import numpy as np
import pytest

from experiments import command
from experiments.nano import post_training
from experiments.train import post_train, rollout_judging
from qtts_jax.errors import EvaluationError


def clip(errors, seconds=2.0):
    return {
        "wer": [errors, 4],
        "sim": [0.8, 1],
        "no_eos": [0.0, 1],
        "repetition": [0.0, 1],
        "seconds": [seconds, 1],
        "expected_seconds": [2.0, 1],
    }


def write(directory, row, seed, clips, texts=("a", "b"), best_of=1, beam=True):
    data = {"row": row, "seed": seed, "best_of": best_of, "beam": beam, "texts": list(texts)}
    data |= {"device": "cpu", "clips": clips}
    (directory / f"{row}.{seed}.json").write_text(json.dumps(data))


def test_a_row_has_the_scores_of_all_its_seeds(tmp_path):
    write(tmp_path, "SFT", 0, [clip(1), clip(0)])
    write(tmp_path, "SFT", 1, [clip(2, 3.0), clip(1)])
    write(tmp_path, "best", 0, [clip(0), clip(0)], best_of=16)
    rows = post_training.read_results(tmp_path)
    found = post_training.estimates(rows["SFT"])
    assert found["wer"].value == 4 / 16
    # Prompt 0 alone has 3 errors in 8 words, prompt 1 has 1.
    assert (found["wer"].low, found["wer"].high) == (1 / 8, 3 / 8)
    assert found["ratio"].value == pytest.approx(4.5 / 4)
    assert found["changed"].value == 0.25 and found["changed"].clips == 4
    table = post_training.markdown(rows)
    assert "| SFT | 2 x 2 | 25.0 [12.5, 37.5] | 0.800 [0.800, 0.800] |  |  | 1.12" in table
    assert "| best, best of 16 | 2 x 1 | 0.0 [0.0, 0.0] |" in table
    # Less those of SFT: 0 in all, and of the one or the other prompt alone.
    assert [line.split("|")[-2] for line in table.splitlines()[4:6]] == [
        "  ",
        " -25.0 [-37.5, -12.5] ",
    ]


def test_faulty_results_are_named(tmp_path):
    with pytest.raises(EvaluationError, match="has no results"):
        post_training.read_results(tmp_path)
    write(tmp_path, "SFT", 0, [clip(1), clip(0)])
    write(tmp_path, "other", 0, [clip(1)], texts=("c",))
    with pytest.raises(EvaluationError, match=r"other\.0\.json has other prompts"):
        post_training.read_results(tmp_path)
    write(tmp_path, "other", 0, [clip(1), clip(0)], beam=False)
    with pytest.raises(EvaluationError, match=r"transcribed otherwise .* --judge-on-devices, or"):
        post_training.read_results(tmp_path)
    (tmp_path / "other.0.json").write_text("{}")
    with pytest.raises(EvaluationError, match=r"other\.0\.json is no result file"):
        post_training.read_results(tmp_path)


@pytest.fixture
def fake_judges(monkeypatch):
    """Scores that are functions of the wave, so that nothing is downloaded or slow."""

    def make(judges, memo=None):
        def score(sample):
            loud = float(np.abs(sample.wave).mean()) if len(sample.wave) else 0.0
            cer = (round(1000 * loud) % 10, 10)
            opinion = (1 + 4 * min(1.0, loud), 1)
            ratio = (abs(sample.seconds / sample.expected_seconds - 1), 1)
            found = {"wer": cer, "cer": cer, "repetition": (0.0, 1), "sim": (0.7, 1)}
            return found | {"mos": opinion, "dnsmos": opinion, "duration": ratio}

        return rollout_judging.Panel({"fake": score})

    monkeypatch.setattr(rollout_judging, "load_panel", make)


def call(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    assert command.exit_status(module.__file__, module.main) == 0


@pytest.mark.slow
def test_both_methods_from_prompts_to_the_table(fake_judges, converted, tmp_path, monkeypatch):
    model = converted("custom_voice")
    generation = json.loads((model / "generation_config.json").read_text())
    assert generation["do_sample"]
    prompts = tmp_path / "prompts.jsonl"
    speakers = ("ryan", "eric")
    lines = [{"text": f"Number {i}.", "language": "english", "speaker": speakers[i % 2]}
             for i in range(3)]  # fmt: skip
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shared = ["--model", model, "--prompts", prompts, "--no-tensorboard", "--least-margin", 0]
    size = ["--samples", 2, "--group-prompts", 2, "--batch-pairs", 1]
    held = ["--held-out", prompts, "--held-out-every", 1]
    for steps in (1, 2):
        options = [*shared, *size, *held, "--out", tmp_path / "gspo", "--steps", steps]
        call(post_train, monkeypatch, "gspo", *options)
    rows = [json.loads(x) for x in (tmp_path / "gspo/metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "reward" in r] == [1, 2]
    assert [r["step"] for r in rows if "held_out/dnsmos" in r] == [0, 1, 2]
    assert [r["step"] for r in rows if r.get("seconds/speech", 0) > 0] == [1, 2]
    call(post_train, monkeypatch, "dpo", *shared, *size, "--out", tmp_path / "dpo", "--steps", 2)
    results = ["--out", tmp_path / "results", "--prompts", prompts, "--before", model]
    for row, path in (("SFT", model), ("+GSPO", tmp_path / "gspo/model"), ("+DPO", "dpo/model")):
        call(post_training, monkeypatch, *results, "--model", tmp_path / path, "--row", row)
    table = (tmp_path / "results/post_training.md").read_text()
    assert all(f"| {row} | 3 x 1 |" in table for row in ("SFT", "+GSPO", "+DPO"))
