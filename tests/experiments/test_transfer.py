"""Packing a checkpoint into small files and back."""

import hashlib
import json

import numpy as np
import pytest

from experiments import transfer
from qtts_jax.errors import CheckpointError
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.training import checkpoints
from tests.support.line_task import LineTask
from tests.training.test_trainer import losses, trainer

PART = 4096


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three steps."""
    directory = tmp_path_factory.mktemp("run")
    outcome = trainer(directory, steps=3).run()
    return directory, outcome.checkpoint


@pytest.fixture
def packed(run, tmp_path):
    transfer.pack(run[1], tmp_path / "packed", PART)
    return tmp_path / "packed"


def test_parts_are_small_and_listed_with_their_checksums(run, tmp_path):
    files = transfer.pack(run[1], tmp_path / "packed", PART)
    assert sorted(files) == sorted((tmp_path / "packed").iterdir())
    *parts, listing = files
    assert len(parts) > 2
    assert all(0 < p.stat().st_size <= PART for p in parts)
    for path, entry in zip(parts, json.loads(listing.read_text())["pieces"], strict=True):
        assert entry["name"] == path.name and entry["bytes"] == path.stat().st_size
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_default_part_is_16_mib():
    assert transfer.PART_BYTES == 16 * 1024 * 1024


def test_training_goes_on_elsewhere_from_the_parts(run, packed, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    transfer.unpack(packed, elsewhere / "checkpoints")
    outcome = trainer(elsewhere).run()
    trainer(tmp_path / "whole").run()
    states = []
    for directory in (elsewhere, tmp_path / "whole"):
        states.append(flatten_params(trainer(directory).newest()))
    assert outcome.step == 9
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)
    assert losses(elsewhere).keys() == set(range(4, 10))


def test_packing_twice_gives_the_same_bytes(run, packed, tmp_path):
    again = transfer.pack(run[1], tmp_path / "again", PART)
    for path in again:
        assert path.read_bytes() == (packed / path.name).read_bytes()


def spoil(path):
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "piece-00001").unlink(), "piece-00001 missing or changed"),
        (lambda d: spoil(d / "piece-00000"), "piece-00000 missing or changed"),
        (lambda d: (d / "pieces.json").unlink(), "no packed checkpoint"),
        (lambda d: (d / "pieces.json").write_text("{}"), "no packed checkpoint"),
        (
            lambda d: (d / "pieces.json").write_text('{"checkpoint": "../x", "pieces": []}'),
            "missing or changed",
        ),
    ],
)
def test_damaged_parts_are_named_and_nothing_is_left(packed, tmp_path, damage, message):
    damage(packed)
    with pytest.raises(CheckpointError, match=message):
        transfer.unpack(packed, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_an_existing_checkpoint_is_not_replaced(run, packed):
    with pytest.raises(CheckpointError, match="already exists"):
        transfer.unpack(packed, run[0] / "checkpoints")


def test_packing_needs_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        transfer.pack(tmp_path, tmp_path / "packed")


def test_a_checkpoint_without_its_position_is_refused(run, tmp_path):
    checkpoint = transfer.unpack(transfer.pack(run[1], tmp_path / "p")[-1].parent, tmp_path / "to")
    (checkpoint / "run.json").write_text("{")
    t = trainer(tmp_path / "x", task=LineTask())
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        checkpoints.restore(checkpoint, t.programs.shapes, t.programs.shardings)
