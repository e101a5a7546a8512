"""Fingerprints of `qtts batch`: what changed is spoken anew, what did not is kept."""

import json
import shutil

import pytest

from qtts_jax.cli.batch import lines
from qtts_jax.cli.batch.fingerprint import Fingerprints, checkpoint_fingerprint
from qtts_jax.cli.batch.run import run_batch
from qtts_jax.cli.batch.voice_cache import VoiceCache
from tests.support.batch_lines import SETTINGS, line


def test_what_changed_is_spoken_anew(run, model, monkeypatch):
    kept = [line("a", seed=1), line("b", seed=1)]
    _, _, before = run([*kept, line("c")])
    made = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda r, codes: made.extend(r) or decode(r, codes))
    failed, reports, got = run([*kept, line("c", text="Other words.")])
    assert failed == 0 and len(made) == 1 and "1 line will be spoken anew" in reports[0]
    assert got["c"]["fingerprint"] != before["c"]["fingerprint"]
    assert got["a"] == before["a"] and got["b"] == before["b"]
    assert run(kept)[1] == [] and len(made) == 1


@pytest.mark.parametrize("strict", [False, True])
def test_another_checkpoint_or_option_is_no_match(run, model, tmp_path, strict):
    run([line("a", seed=1)])
    before = (run.out / "a.wav").stat().st_mtime_ns
    other, reports = {"checkpoint": "golden", "dtype": "bfloat16"}, []
    path = tmp_path / "requests.jsonl"
    assert run_batch(model, path, run.out, 4, reports.append, other, strict=strict) == strict
    assert ((run.out / "a.wav").stat().st_mtime_ns == before) == strict
    if strict:
        assert "line 1 (a)" in reports[0] and "leave out --strict" in reports[0]
        # The result is still that of the first settings.
        assert run_batch(model, path, run.out, 4, reports.append, SETTINGS, strict=strict) == 0


def test_results_of_versions_without_fingerprints_are_spoken_anew(run):
    _, _, got = run([line("a", seed=1)])
    del got["a"]["fingerprint"]
    (run.out / "results.jsonl").write_text(json.dumps(got["a"]) + "\n")
    _, reports, got = run([line("a", seed=1)])
    assert "earlier versions" in reports[0] and len(reports) == 1 and got["a"]["fingerprint"]


def test_fingerprints_follow_the_contents_of_reference_files(tts, tmp_path):
    one = lines.Line(1, {"id": "a", "mode": "voice_clone", "text": "Hi.", "ref_audio": "r.wav"})
    moved = lines.Line(2, one.data | {"id": "b", "ref_audio": str(tmp_path / "s.wav")})
    for name in "rs":
        (tmp_path / f"{name}.wav").write_bytes(b"one")

    def prints():
        fingerprint = Fingerprints(VoiceCache(tts("base"), tmp_path), SETTINGS)
        return [fingerprint(one), fingerprint(moved)]

    before = prints()
    assert before[0] == before[1]
    (tmp_path / "r.wav").write_bytes(b"two")
    assert prints()[0] != before[0] and prints()[1] == before[1]


def test_fingerprints_of_checkpoints(converted, tmp_path):
    source, copy = converted("custom_voice"), tmp_path / "copy"
    shutil.copytree(source, copy)
    assert checkpoint_fingerprint(copy) == checkpoint_fingerprint(source)
    assert checkpoint_fingerprint(copy) != checkpoint_fingerprint(converted("base"))
    (copy / "README.md").write_text("Notes.")
    assert checkpoint_fingerprint(copy) == checkpoint_fingerprint(source)
    settings = copy / "generation_config.json"
    settings.write_text(settings.read_text().replace("0.9", "0.8"))
    assert checkpoint_fingerprint(copy) != checkpoint_fingerprint(source)
