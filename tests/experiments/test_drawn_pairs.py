"""Draws of every prompt: kept a batch at a time, and the best and worst of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.train.drawn_pairs import Draws, scored_draws, write_best_and_worst
from qtts_jax.errors import DataError
from qtts_jax.training.preference.pairs import Take

REQUESTS = list(range(10))  # five prompts, two draws each
SETTINGS = {"seed": 3, "sampling": {"temperature": 0.4}}


def speech(request):
    """As many frames as its number has, and two more."""
    return SimpleNamespace(codes=np.full((request + 2, 3), request), ended=request != 4)


class Voice:
    def __init__(self, stop_after=99):
        self.batches, self._left = [], stop_after

    def __call__(self, requests):
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        self.batches.append(list(requests))
        return [speech(r) for r in requests]


def rewards(numbers, spoken):
    assert numbers == [s.codes[0, 0] // 2 for s in spoken]
    return np.asarray([float(len(s.codes)) for s in spoken])


def draw(folder, voice, **changes):
    return scored_draws(voice, REQUESTS, 2, rewards, 4, folder, SETTINGS | changes)


def test_an_interrupted_session_goes_on_with_the_batch_after_it(tmp_path):
    first = Voice(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "a", first)
    second, whole = Voice(), Voice()
    found, at_once = draw(tmp_path / "a", second), draw(tmp_path / "b", whole)
    assert first.batches + second.batches == whole.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for each, other, request in zip(found.takes, at_once.takes, REQUESTS, strict=True):
        np.testing.assert_array_equal(each.codes, speech(request).codes)
        np.testing.assert_array_equal(each.codes, other.codes)
        assert each.ends is other.ends is (request != 4)
    np.testing.assert_array_equal(found.rewards, np.arange(10.0) + 2)


def test_a_failure_of_the_scores_ends_the_session(tmp_path):
    def broken(numbers, spoken):
        raise DataError("no judge")

    with pytest.raises(DataError, match="no judge"):
        scored_draws(Voice(), REQUESTS, 2, broken, 4, tmp_path, SETTINGS)


def test_draws_of_other_settings_are_refused(tmp_path):
    draw(tmp_path, Voice())
    with pytest.raises(DataError, match=r"other settings \(sampling\); use another --out"):
        draw(tmp_path, Voice(), sampling={"temperature": 0.5})
    voice = Voice()
    draw(tmp_path, voice)
    assert voice.batches == []


def test_pairs_are_the_best_and_worst_draws_of_a_prompt(tmp_path):
    takes = [Take(np.full((3, 2), i)) for i in range(6)]
    draws = Draws(takes, np.asarray([0.1, 0.9, 0.5, 0.7, 0.7, 0.7]))
    prompts = [{"text": "One."}, {"text": "Two."}]
    path = write_best_and_worst(tmp_path / "pairs", prompts, draws, 0.1, 1)
    assert len(path.read_text().splitlines()) == 1
    assert np.load(tmp_path / "pairs" / "000000.chosen.npy")[0, 0] == 1
    assert np.load(tmp_path / "pairs" / "000000.rejected.npy")[0, 0] == 0
    with pytest.raises(DataError, match=r"no group has rewards that differ by 0\.9"):
        write_best_and_worst(tmp_path / "none", prompts, draws, 0.9, 1)
