"""Lines of `qtts batch`: what they may hold, and that a wrong one costs no other."""

import json

import numpy as np
import pytest

from qtts_jax.cli.batch import command as batch_command
from qtts_jax.cli.batch import lines
from qtts_jax.cli.batch.run import run_batch
from qtts_jax.cli.main import main
from qtts_jax.errors import QTTSError, RequestError
from qtts_jax.io.atomic_files import write_whole
from tests.support.batch_lines import SETTINGS, line, results, write_requests


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "must be a JSON object"),
        ({"id": "b"}, "'text' is missing"),
        ({"text": "Hi."}, "'id' is missing"),
        (line("../b"), "cannot name files"),
        (line("-rf"), "cannot name files"),
        (line("b/c"), "cannot name files"),
        (line("b\\c"), "cannot name files"),
        (line("CON"), "reserved file name"),
        (line("lpt1.x"), "reserved file name"),
        (line("Results.jsonl"), "reserved file name"),
        (line("b", txet="x"), "unknown field 'txet'"),
        (line("b", text=5), "text must be a JSON str"),
        (line("b", seed=True), "seed must be a JSON int"),
        (line("b", speaker="bob"), "unknown speaker"),
        (line("b", language="klingon"), "unknown language"),
        (line("b", text=" "), "empty"),
        (line("b", mode="singing"), "unknown mode"),
        (line("b", mode="voice_design"), "does not fit this checkpoint"),
        (line("b", ref_text="words"), "does not use ref_text"),
        (line("b", temperature=-1), "temperature must be above 0"),
        (line("b", temperature=0), 'for greedy decoding use "greedy": true'),
        (line("b", text="word " * 40000, split=False), "model's context"),
        (line("a"), "used twice"),
        (line("A"), "'A' differs from 'a' in case alone"),
        ('{"id": "b", "text": "Hi.", "top_k": Infinity}', "top_k must be a whole number"),
        ('{"id": "b", "text": "Hi.", "top_k": NaN}', "top_k must be a whole number"),
        ('{"id": "b", "text": "Hi.", "temperature": -Infinity}', "temperature must be a finite"),
        (f'{{"id": "b", "text": "Hi.", "seed": {"1" * 5000}}}', "not JSON"),
        ("[" * 200_000, "not JSON"),
        (line("b" * 240), "the id has 240 characters"),
        ('{"id": "\\ud800"}', "'text' is missing"),
    ],
)
def test_a_bad_line_is_reported_and_the_rest_is_kept(run, bad, message):
    failed, reports, got = run([line("a"), bad, line("c")])
    assert failed == 1
    reports = [each for each in reports if not each.startswith("note: ")]
    assert len(reports) == 1 and message in reports[0] and "line 2" in reports[0]
    assert got["a"]["status"] == got["c"]["status"] == "ok"
    assert (run.out / "c.wav").exists() and not (run.out / "b.wav").exists()


def test_unreadable_requests(model, tmp_path):
    with pytest.raises(RequestError, match="cannot read the requests"):
        run_batch(model, tmp_path / "no.jsonl", tmp_path / "out", 1, print, SETTINGS)


def test_a_huge_top_k_is_all_of_the_vocabulary(run):
    failed, _, got = run([line("a", top_k=5_000_000_000, seed=1), line("b", top_k=0, seed=1)])
    assert failed == 0 and got["a"]["status"] == "ok"
    np.testing.assert_array_equal(*(np.load(run.out / f"{i}.codes.npy") for i in "ab"))


def test_ids_of_the_greatest_length_name_files(run):
    id_ = "a" * lines.LONGEST_ID
    failed, _, got = run([line(id_)])
    assert failed == 0 and (run.out / got[id_]["codes"]).exists()


def test_a_name_that_is_too_long_is_one_clear_error(tmp_path):
    with pytest.raises(QTTSError, match="cannot write"):
        write_whole(tmp_path / ("a" * 250), b"")


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_line_separators_inside_strings_part_no_lines(run, model, tmp_path, monkeypatch, end):
    spoken = []
    plan = model.plan
    monkeypatch.setattr(model, "plan", lambda r: spoken.append(r.text) or plan(r))
    text = "One\u2028two\x85three."
    lines = [json.dumps(line(i, text=text), ensure_ascii=False) for i in "ab"]
    path = tmp_path / "raw.jsonl"
    path.write_bytes(((end or "\n").join(lines) + end).encode())
    assert run_batch(model, path, tmp_path / "raw", 4, print, SETTINGS) == 0
    assert spoken == [text, text]
    assert [r["line"] for r in results(tmp_path / "raw").values()] == [1, 2]


def test_options_hold_for_the_lines_that_do_not_say_otherwise(
    converted, model, tmp_path, monkeypatch
):
    path = write_requests(tmp_path / "r.jsonl", [line("a"), line("b", normalize=False)])
    monkeypatch.setattr(batch_command, "load_tts", lambda args: model)
    spoken, plan = [], model.plan
    monkeypatch.setattr(model, "plan", lambda r: spoken.append((r.normalize, r.split)) or plan(r))
    options = ["--model", str(converted("custom_voice")), "--normalize", "--no-split"]
    assert main(["batch", str(path), "--out", str(tmp_path / "out"), *options]) == 0
    assert spoken == [(True, False), (False, False)]


def test_a_line_without_a_speaker_gets_the_first_preset(run, model, monkeypatch):
    spoken = []
    plan = model.plan
    monkeypatch.setattr(model, "plan", lambda r: spoken.append(r.speaker) or plan(r))
    no_name = {k: v for k, v in line("a").items() if k != "speaker"}
    failed, reports, _ = run([no_name, line("b", speaker=None), line("c"), line("d", speaker="")])
    first = model.config.talker.speakers[0][0]
    assert failed == 0 and spoken == [first, first, "ryan", ""]
    assert len(reports) == 1 and f"2 lines without a speaker as {first}" in reports[0]
