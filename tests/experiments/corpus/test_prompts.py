"""Prompts of texts with speakers in turns, and sources that cannot be read."""

import json
import sys

import pytest

from experiments import command
from experiments.corpus import prompts


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["prompts", *map(str, arguments)])
    return command.exit_status(prompts.__file__, prompts.main)


def test_every_second_text_has_the_next_speaker(tmp_path, monkeypatch):
    texts, out = tmp_path / "texts.jsonl", tmp_path / "prompts.jsonl"
    texts.write_text("".join(json.dumps({"kind": "prose", "text": t}) + "\n" for t in "abcdefgh"))
    options = ["--first", 1, "--every", 2, "--count", 3, "--speaker", "joe", "ann", "--out", out]
    assert run(monkeypatch, "--texts", texts, *options) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["text"], r["speaker"]) for r in rows] == [("b", "joe"), ("d", "ann"), ("f", "joe")]
    assert {r["language"] for r in rows} == {"english"}


def test_long_texts_are_left_out(tmp_path, monkeypatch):
    texts, out = tmp_path / "texts.jsonl", tmp_path / "prompts.jsonl"
    texts.write_text("".join(json.dumps({"text": t}) + "\n" for t in ("abcd", "abc", "abcde")))
    options = ["--longest", 4, "--speaker", "joe", "--out", out]
    assert run(monkeypatch, "--texts", texts, *options) == 0
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == ["abcd", "abc"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [("--texts", "cannot be read"), ("--corpus", "has no packages")],
)
def test_a_source_that_is_not_there_is_named(tmp_path, monkeypatch, capsys, source, fault):
    out = tmp_path / "prompts.jsonl"
    options = [source, tmp_path / "none", "--speaker", "joe", "--out", out]
    assert run(monkeypatch, *options) == 1
    assert fault in capsys.readouterr().err and not out.exists()
