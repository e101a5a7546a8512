"""Results of `qtts batch`: what they say, and which of them a later run makes again."""

import dataclasses

import pytest

from qtts_jax.cli.batch import results as result_files
from qtts_jax.cli.batch.run import run_batch
from qtts_jax.errors import QTTSError, RequestError
from tests.support.batch_lines import SETTINGS, line, write_requests


def test_results_say_whether_the_speech_ended(run, model, monkeypatch):
    decode = model.decode
    _, _, got = run([line("a")])
    assert got["a"]["ended"] is False and got["a"]["frames"] == 3
    monkeypatch.setattr(
        model, "decode", lambda *a: [dataclasses.replace(s, ended=True) for s in decode(*a)]
    )
    assert run([line("b")])[2]["b"]["ended"] is True


def test_finished_requests_are_not_made_again(run, model, monkeypatch):
    run([line("a", seed=1), line("b", speaker="bob")])
    kept = (run.out / "a.wav").stat().st_mtime_ns
    with (run.out / "results.jsonl").open("a") as file:
        file.write('{"id": "half')  # an interrupt in the middle of a line
    made = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda r, codes: made.extend(r) or decode(r, codes))
    failed, _, got = run([line("a", seed=1), line("b"), line("c")])
    assert failed == 0 and len(made) == 2
    assert [got[i]["status"] for i in "abc"] == ["ok"] * 3
    assert (run.out / "a.wav").stat().st_mtime_ns == kept


def test_a_lost_file_is_made_again(run):
    run([line("a")])
    (run.out / "a.wav").unlink()
    run([line("a")])
    assert (run.out / "a.wav").exists()


def test_a_result_cut_short_inside_a_character_is_passed_over(run):
    run([line("a")])
    with (run.out / "results.jsonl").open("ab") as file:
        file.write('{"id": "b", "error": "\u00e9'.encode()[:-1])
    failed, _, got = run([line("a"), line("b")])
    assert failed == 0 and got["b"]["status"] == "ok"


def test_results_that_cannot_be_written_are_one_clear_error(run, monkeypatch):
    run([line("a")])
    monkeypatch.setattr(result_files.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(QTTSError, match=r"cannot write .*results.jsonl: full"):
        run([line("b")])


def test_the_output_must_be_a_directory(model, tmp_path):
    path = write_requests(tmp_path / "requests.jsonl", [line("a")])
    with pytest.raises(RequestError, match="cannot make the directory"):
        run_batch(model, path, path, 1, print, SETTINGS)
