"""Predicted codes of the command `codebook_importance` for recorded frames."""

import dataclasses
import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import command
from qtts_jax.functional import abstract, bind
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from tests.support.small_talker import BOOKS, ENTRIES, ROLE, small, utterances

CONFIG = small("custom_voice", layers=1)


@pytest.fixture(scope="module")
def importance():
    return importlib.import_module("experiments.nano.codebook_importance")


@pytest.fixture(scope="module")
def params():
    return TalkerTask(TalkerTaskConfig(CONFIG)).init(jax.random.key(0))[0]


@pytest.fixture(scope="module")
def forced(importance, params):
    return importance.force(CONFIG, params, ROLE, utterances(3))


def test_recorded_codebooks_stay_and_others_are_the_best_after_those_before(
    importance, params, forced
):
    model = bind(abstract(TTSModel, CONFIG)[0], params)
    for given in (1, 3):
        codes = importance.most_probable(CONFIG, params, forced, given)
        np.testing.assert_array_equal(codes[..., :given], forced.codes[..., :given])
        assert codes.shape == (3, 7, BOOKS) and codes.min() >= 0 and codes.max() < ENTRIES
        for row, frame in ((0, 0), (2, 6)):
            first = model.talker.embed_codec(jnp.asarray(codes[row, frame, :1]))
            logits = model.code_predictor.teacher_forced(
                forced.hidden[row, frame][None], first, jnp.asarray(codes[row, frame, None, 1:])
            )
            best = np.argmax(np.asarray(logits[0]), axis=-1)
            np.testing.assert_array_equal(codes[row, frame, given:], best[given - 1 :])
    np.testing.assert_array_equal(
        importance.most_probable(CONFIG, params, forced, BOOKS), forced.codes
    )


def test_codebook_0_is_predicted_from_the_frames_before(importance, params, forced):
    assert forced.first.shape == (3, 7) and forced.first.max() < CONFIG.talker.codebook_size
    changed = utterances(3)
    codes = changed[1].codes.copy()
    codes[4] = (codes[4] + 1) % ENTRIES
    changed[1] = dataclasses.replace(changed[1], codes=codes)
    again = importance.force(CONFIG, params, ROLE, changed)
    same = np.abs(np.asarray(again.hidden - forced.hidden)).max(axis=-1) < 1e-5
    assert same[0].all() and same[1, :5].all() and not same[1, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "choose another --speaker or --split"),
        (["--codebooks", "0", "23"], "from 1 to 22 for this model, not [0, 23]"),
    ],
)
def test_faults_are_one_clear_error(importance, tmp_path, monkeypatch, capsys, options, message):
    import soundfile

    from qtts_jax.embedded import DIRECTORY

    soundfile.write(tmp_path / "a.wav", np.full(72000, 0.1, np.float32), 24000)
    line = '{"audio": "a.wav", "text": "Yes.", "speaker": "nobody", "language": "english"'
    line += ', "split": "test"}\n'
    (tmp_path / "m.jsonl").write_text(line)
    out = tmp_path / "out"
    words = ["importance", str(DIRECTORY), "--manifest", str(tmp_path / "m.jsonl")]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(out), *options])
    assert command.exit_status(importance.__file__, importance.main) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()
