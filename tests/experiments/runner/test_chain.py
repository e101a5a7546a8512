"""Runs resume after a kill with the same result, share finished pieces, and name what failed."""

import json

import jax
import numpy as np
import pytest

from experiments.runner import chain, worker
from experiments.runner.chain import Piece
from experiments.runner.training import train
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.line_task import LineBatches, LineTask

RULE = OptimizerConfig(0.02)
CONFIG = TrainerConfig(
    steps=12, optimizers={"one": RULE, "two": RULE}, save_every=5, log_every=4, keep=1,
    tensorboard=False, progress=False,
)  # fmt: skip


class Killed(BaseException):
    """What no handler of an ordinary error catches."""


class DeadlyBatches(LineBatches):
    """Ends the process before a batch."""

    def __init__(self, deadly):
        super().__init__()
        self.deadly = deadly

    def __next__(self):
        if self.at == self.deadly:
            raise Killed
        return super().__next__()


def pieces(deadly=None, at="talker", variation="a"):
    """Two trainings and a score; the batch `deadly` of the piece `at` kills."""

    def learn(name, folder, _):
        batches = DeadlyBatches(deadly if name == at else None)
        state, done = train(
            LineTask(), batches, lambda batch: {"rows": len(batch["x"])}, CONFIG, folder, 3, None
        )
        return done | {"norm": float(np.sum([np.sum(x**2) for x in jax.tree.leaves(state.params)]))}

    def score(folder, records):
        if deadly == 0 and at == "scores":
            raise ValueError("no score\nfor this")
        return {"score": records["talker"]["norm"] - records["tokenizer"]["norm"]}

    return [
        Piece("tokenizer", "shared", lambda *args: learn("tokenizer", *args)),
        Piece("talker", variation, lambda *args: learn("talker", *args)),
        Piece("scores", variation, score),
    ]


def request(folder, variation="a"):
    return worker.Request(
        "line", variation, 3, "tiny", str(folder / "pieces"), "", None, (), None,
        str(folder / f"{variation}.json"), str(folder / f"{variation}.failure.json"),
    )  # fmt: skip


def result(folder):
    """What a run has written, without times."""
    found = json.loads((folder / "a.json").read_text())
    for piece in ("tokenizer", "talker"):
        del found[piece]["seconds"]
    return found


def test_a_run_killed_anywhere_equals_an_uninterrupted_one(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert worker.perform(request(whole), pieces(), dict) == 0
    for deadly, at in ((3, "tokenizer"), (8, "tokenizer"), (7, "talker")):
        with pytest.raises(Killed):
            worker.perform(request(killed), pieces(deadly, at), dict)
        assert not (killed / "a.json").exists()
    assert worker.perform(request(killed), pieces(), dict) == 0
    assert result(killed) == result(whole)
    assert result(whole)["talker"] | {"steps": 12, "rows": 96} == result(whole)["talker"]
    assert result(whole)["talker"]["flops"] > 0 and result(whole)["talker"]["curves"]["loss"]


def test_a_second_variation_takes_the_finished_pieces_of_the_first(tmp_path):
    chain.make(pieces(), tmp_path)
    began = []
    chain.make(pieces(variation="b"), tmp_path, began.append)
    assert began == ["talker", "scores"]
    began.clear()
    chain.make(pieces(variation="b"), tmp_path, began.append)
    assert not began


def test_a_failure_names_its_piece_and_reason_and_goes_when_the_run_succeeds(tmp_path, capsys):
    failing = request(tmp_path)
    assert worker.perform(failing, pieces(0, "scores"), dict) == 1
    found = json.loads((tmp_path / "a.failure.json").read_text())
    assert (found["piece"], found["reason"]) == ("scores", "ValueError: no score\nfor this")
    assert worker.perform(failing, pieces(), dict) == 0
    assert not (tmp_path / "a.failure.json").exists()


def test_keys_depend_on_every_input():
    assert chain.key_of(1, "a") == chain.key_of(1, "a")
    assert len({chain.key_of(1, "a"), chain.key_of(1, "b"), chain.key_of("1", "a")}) == 3
