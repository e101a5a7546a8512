"""Checkpoint folders from trained weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.errors import CheckpointError
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from qtts_jax.training.export import divided_books, save_tokenizer
from qtts_jax.training.log import RunLog, read_metrics
from qtts_jax.training.optimizer import OptimizerConfig, optimizer
from qtts_jax.training.state import first_state
from qtts_jax.training.tokenizer.samples import reconstruction_samples
from qtts_jax.training.tokenizer.task import TokenizerTask
from tests.support.small_tokenizer import PLAIN, toy_audio, toy_config


@pytest.fixture(scope="module")
def trained():
    task = TokenizerTask(toy_config(), PLAIN, dtype=jnp.float32, precision="highest")
    params, extras = jax.jit(task.init)(jax.random.key(0))
    audio = toy_audio(4, 30)
    # Nothing but the books changes, so that they are not those of a start.
    extras = jax.jit(task.gradients)(params, extras, {"audio": audio}, jax.random.key(0))[1]
    return task, params, extras, audio


def test_a_saved_tokenizer_gives_the_codes_of_training(trained, tmp_path):
    task, params, extras, audio = trained
    codes, samples = jax.device_get(jax.jit(task.reconstruct)(params, extras, audio))
    whole = task.tokenizer_params(params, extras)
    model = SpeechTokenizer.from_pretrained(
        save_tokenizer(tmp_path / "model", task.config, whole, jnp.float32)
    )
    rate = model.input_sample_rate
    for wave, expected in zip(audio[:2], codes[:2], strict=True):
        np.testing.assert_array_equal(model.encode((wave, rate))[0], expected)
    decoded = model.decode(codes[0])[0][0]
    np.testing.assert_allclose(decoded, samples[0], atol=1e-4)


def test_books_are_stored_as_entries_with_counts_of_one(trained):
    task, params, extras, _ = trained
    whole = task.tokenizer_params(params, extras)
    books, before = (
        tree["decoder"]["quantizer"]["acoustic"] for tree in (divided_books(whole), whole)
    )
    assert float(jnp.max(jnp.abs(before["usage"] - 1))) > 0.1
    np.testing.assert_array_equal(books["usage"], 1)
    expected = np.asarray(before["embed_sum"]) / np.asarray(before["usage"])[..., None]
    np.testing.assert_allclose(books["embed_sum"], expected, rtol=1e-6)


def test_a_tokenizer_that_cannot_be_written_leaves_nothing(trained, tmp_path):
    task, params, extras, _ = trained
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError):
        save_tokenizer(tmp_path / "file" / "model", task.config, params | {"x": extras})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_reconstructions_are_logged_beside_the_recordings(trained, tmp_path):
    task, params, extras, audio = trained
    rules = {"generator": optimizer(OptimizerConfig(1e-3))}
    state = first_state(params, extras, rules, jax.random.key(1), False)
    hook = reconstruction_samples(task, audio[:1])
    with RunLog(tmp_path, tensorboard=False) as log:
        hook(state, log)
        hook(state._replace(step=jnp.array(5)), log)
    names = [
        {p.stem for p in (tmp_path / "samples" / s).iterdir()} for s in ("00000000", "00000005")
    ]
    assert names == [{"recorded_0", "decoded_0"}, {"decoded_0"}]
    rows = read_metrics(tmp_path)
    assert rows[0]["held_out/mel"] == rows[1]["held_out/mel"] > 0
