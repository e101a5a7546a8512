"""Batches of whole clips with their text."""

import numpy as np
import pytest

from qtts_jax.data import TranscribedBatches, Waves, byte_ids
from qtts_jax.errors import DataError

RATE, CODE, HOP = 16000, 640, 160
TEXTS = ("one", "zwölf", "a", "too long")


def waves(lengths=(1280, 1300, 640, 9000)):
    rng = np.random.default_rng(0)
    clips = [rng.uniform(-0.5, 0.5, n).astype(np.float32) for n in lengths]
    return Waves(RATE, np.arange(len(clips)), clips, np.asarray(lengths, np.int64))


def batches(texts=TEXTS, seconds=0.1, **options):
    settings = {"rows": 3, "samples_per_code": CODE, "hop": HOP, "threads": 0, **options}
    ids = [byte_ids(text) if text else [] for text in texts]
    return TranscribedBatches(waves(), ids, seconds=seconds, **settings)


def test_an_epoch_has_every_short_clip_with_its_text():
    made = batches(seconds=0.2)
    batch = next(made)
    assert made.left_out == 1
    assert batch["audio"].shape == (3, 3 * CODE) and batch["text"].shape == (3, 8)
    assert sorted(batch["frames"]) == [4, 8, 12]
    order = np.argsort(batch["frames"])
    for row, text in zip(order, ("a", "one", "zwölf"), strict=True):
        ids = batch["text"][row][: batch["text_length"][row]].tolist()
        assert ids == byte_ids(text)
    clip = waves()[1]
    np.testing.assert_allclose(batch["audio"][order[2]][: len(clip)], clip / 32768)
    assert not np.any(batch["audio"][order[2]][len(clip) :])
    np.testing.assert_allclose(batch["frames_per_row"], batch["frames"].mean())
    np.testing.assert_allclose(batch["text_per_row"], batch["text_length"].mean())


def test_batches_go_on_from_a_position():
    made = batches(rows=2)
    wanted = [next(made) for _ in range(4)]
    again = batches(rows=2)
    next(again), next(again)
    later = batches(rows=2)
    later.restore(again.state())
    for batch in wanted[2:]:
        np.testing.assert_array_equal(next(later)["audio"], batch["audio"])


def test_bad_clips_are_refused():
    with pytest.raises(DataError, match=r"longer than 0.02 s, the limit of a row; raise it"):
        batches(seconds=0.02)
    with pytest.raises(DataError, match="a clip without text"):
        batches(texts=("one", "", "a", "b"))
