"""Training of the 25 Hz encoder: losses, gradients, codebook, padding, resuming."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qtts_jax import SpeechTokenizer
from qtts_jax.errors import ConfigError
from qtts_jax.functional import initialize
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.training.tokenizer.config import CodebookTraining
from qtts_jax.training.tokenizer_25hz.config import EncoderTraining
from qtts_jax.training.tokenizer_25hz.encoder_task import EncoderTask
from tests.support.sessions import assert_sessions_end_in_the_same_state
from tests.support.small_tokenizer_25hz import CODE, HEADS, toy_config, toy_transcripts

CONFIG = toy_config()
FAST = CodebookTraining(dropout=0.0, decay=0.9)
MEL = EncoderTraining(mel=1.0, commitment=0.25, codebook=FAST)
STEPS = 80


def make(training=MEL, config=CONFIG, **options):
    return EncoderTask(config, HEADS, training, dtype=jnp.float32, precision="highest", **options)


@pytest.fixture(scope="module")
def batch():
    return toy_transcripts()


@pytest.fixture(scope="module")
def begun():
    return jax.jit(make().init)(jax.random.key(0))


@pytest.fixture(scope="module")
def step():
    """One program for all short tests: gradients, and an update by Adam."""
    task, optimizer = make(), optax.adam(3e-3)

    @jax.jit
    def run(params, extras, moments, batch, key):
        grads, after, metrics = task.gradients(params, extras, batch, key)
        updates, moments = optimizer.update(grads, moments)
        return (optax.apply_updates(params, updates), after, moments), grads, metrics

    return run


@pytest.fixture(scope="module")
def gradients(step):
    """(params, extras, batch, key) -> gradients, extras, metrics."""

    def run(params, extras, batch, key):
        moments = optax.adam(3e-3).init(params)
        (_, after, _), grads, metrics = step(params, extras, moments, batch, key)
        return jax.device_get((grads, after, metrics))

    return run


@pytest.fixture(scope="module")
def learned(begun, batch, step):
    """Parameters, extras and the metrics of every step after training on one batch."""
    carry, found = (*begun, optax.adam(3e-3).init(begun[0])), []
    for i in range(STEPS):
        carry, _, metrics = step(*carry, batch, jax.random.key(i))
        found.append(metrics)
    return (*jax.device_get(carry[:2]), jax.tree.map(lambda *x: np.stack(x), *found))


def test_losses_of_one_batch_fall(learned):
    metrics = learned[2]
    assert metrics["asr"][0] > 5  # 257 equally likely ids are ln(257) = 5.5 nats
    assert metrics["asr"][-10:].mean() < 0.5 * metrics["asr"][0]
    assert metrics["mel"][-10:].mean() < 0.5 * metrics["mel"][0]
    assert metrics["accuracy"][-1] > 0.5
    assert metrics["perplexity"][-1] > 4


def test_every_parameter_but_the_unused_has_a_gradient(begun, batch, gradients):
    grads, extras, metrics = gradients(*begun, batch, jax.random.key(1))
    flat = flatten_params(grads)
    still = {name for name, g in flat.items() if not np.any(np.asarray(g))}
    assert not still
    assert not any("codebook" in name or "usage" in name for name in flat)
    assert set(metrics) >= {"loss", "asr", "mel", "commitment", "accuracy", "perplexity", "used"}
    assert float(extras["book"]["initialized"][0, 0]) == 1


@pytest.mark.slow
def test_the_first_stage_leaves_the_mel_decoder_out(begun, batch):
    grads, _, metrics = jax.jit(make(EncoderTraining(codebook=FAST)).gradients)(
        *begun, batch, jax.random.key(1)
    )
    mel = flatten_params(grads["heads"]["mel"])
    assert "mel" not in metrics and not any(np.any(np.asarray(g)) for g in mel.values())
    assert np.any(np.asarray(grads["encoder"]["conv1"]["kernel"]))


def test_padding_changes_nothing(begun, batch, gradients):
    """Longer rows, and anything but silence behind their end, give the same result."""
    first = gradients(*begun, batch, jax.random.key(1))
    loud = batch | {"audio": batch["audio"].copy()}
    for row, frames in zip(loud["audio"], batch["frames"], strict=True):
        # The last frame reads a margin behind its end.
        row[int(frames) * 160 + 200 :] = 0.01
    second = gradients(*begun, loud, jax.random.key(1))
    for name, value in flatten_params(first[0]).items():
        other = flatten_params(second[0])[name]
        np.testing.assert_allclose(other, value, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(first[1]["book"]["usage"], second[1]["book"]["usage"], atol=1e-6)


@pytest.mark.slow
def test_microbatches_are_one_batch(begun, batch):
    """Gradients and codebook of two microbatches are those of the whole batch."""
    known = CodebookTraining(dropout=0.0, dead=0.0)
    task = make(replace(MEL, codebook=known))
    params, extras = begun
    filled = jax.jit(task.gradients)(params, extras, batch, jax.random.key(0))[1]
    filled = filled | {"calls": jnp.zeros((), jnp.int32)}
    whole = jax.jit(task.gradients)(params, filled, batch, jax.random.key(1))
    halves = jax.jit(make(replace(MEL, codebook=known), accumulate=2).gradients)
    extras, parts = filled, []
    for i in range(2):
        half = {name: x[2 * i :][:2] for name, x in batch.items()}
        grads, extras, _ = halves(params, extras, half, jax.random.key(1))
        parts.append(grads)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
    for name, value in flatten_params(whole[0]).items():
        np.testing.assert_allclose(flatten_params(mean)[name], value, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(
        extras["book"]["embed_sum"], whole[1]["book"]["embed_sum"], atol=1e-4
    )


@pytest.mark.slow
def test_trained_codes_are_those_of_the_tokenizer(learned, batch):
    params, extras, _ = learned
    task = make()
    codes = np.asarray(jax.jit(task.codes)(params, extras, batch))
    tree = initialize(Tokenizer25Hz, CONFIG, seed=0)
    tree = tree | {"encoder": task.encoder_params(params, extras)}
    model = SpeechTokenizer.from_params(CONFIG, tree)
    # The longest row alone has no padding behind it; both mirror the wave at its end.
    found = model.encode((batch["audio"][0], 16000))[0]
    np.testing.assert_array_equal(codes[0], found)
    assert len(set(codes[0])) > 3
    n = int(batch["frames"][1]) // 4
    shorter = model.encode((batch["audio"][1][: n * CODE], 16000))[0]
    np.testing.assert_array_equal(codes[1, : n - 1], shorter[: n - 1])


@pytest.mark.slow
def test_a_checkpoint_starts_another_run(learned, batch):
    params, extras, _ = learned
    tree = make().encoder_params(params, extras)
    task = make(start=tree)
    again, more = task.init(jax.random.key(5))
    for name, value in flatten_params(again["encoder"]).items():
        np.testing.assert_array_equal(value, flatten_params(params["encoder"])[name])
    codes = [jax.jit(task.codes)(p, e, batch) for p, e in ((params, extras), (again, more))]
    np.testing.assert_array_equal(*codes)


@pytest.mark.slow
def test_run_in_sessions_ends_in_the_same_state(tmp_path):
    assert_sessions_end_in_the_same_state(make, toy_transcripts, ("encoder", "heads"), tmp_path)


def test_bad_input_is_one_sentence(batch):
    decoder, task = CONFIG.decoder, make()
    dit = replace(decoder.dit, repeats=8)
    vocoder = replace(decoder.vocoder, upsample_rates=(5, 2), upsample_kernels=(11, 8))
    wrong_mel = replace(CONFIG, decoder=replace(decoder, dit=dit, vocoder=vocoder))
    with pytest.raises(ConfigError, match="not 10 ms; change upsample_rates"):
        make(config=wrong_mel)
    few = replace(CONFIG, decoder=replace(decoder, dit=replace(decoder.dit, code_entries=8)))
    with pytest.raises(ConfigError, match="cannot be trained when the decoder knows 8 codes"):
        make(config=few)
    silent = {name: x for name, x in batch.items() if name != "text"}
    state = jax.eval_shape(task.init, jax.random.key(0))
    with pytest.raises(ConfigError, match="needs text in every batch"):
        jax.eval_shape(task.gradients, *state, silent, None)
    with pytest.raises(ConfigError, match="neither dropped nor bypassed"):
        EncoderTraining(codebook=CodebookTraining())
