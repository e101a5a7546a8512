"""Codes first, then the decoder: what each stage trains, and what it leaves as it is."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from qtts_jax.dsp.loudness import disturbance, loudness_spectra
from qtts_jax.dsp.stft import envelope_spectra, log10_mel
from qtts_jax.errors import ConfigError
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.training.tokenizer import losses
from qtts_jax.training.tokenizer.config import (
    CodebookTraining,
    DiscriminatorConfig,
    LossWeights,
    SpectrumConfig,
    TokenizerTraining,
)
from qtts_jax.training.tokenizer.params import assemble, disassemble, merge, split
from qtts_jax.training.tokenizer.task import TokenizerTask
from tests.support.quick_compilation import OPTIMIZED
from tests.support.small_tokenizer import FRAME, SCALES, TEACHER, toy_batch, toy_config

CONFIG = toy_config()
# Windows of two frames; four spectra to a code frame are one quarter of the smallest window each.
ENVELOPE = SpectrumConfig(window=32, mels=5)
LOW = SpectrumConfig(window=64, mels=3, top=3000.0)
CODES = TokenizerTraining(
    stage="codes",
    # The envelope of each of two sets of spectra; the teacher's so that it counts beside them.
    weights=LossWeights(envelope=5.0, commitment=0.05, teacher=20.0),
    spectra=(ENVELOPE, LOW),
    codebook=CodebookTraining(dropout=0.0, decay=0.9),
    teacher_width=TEACHER,
)
DECODER = TokenizerTraining(
    stage="decoder",
    weights=LossWeights(loudness=2.0),
    mel_scales=SCALES,
    decoded_frames=6,
    codebook=CodebookTraining(dropout=0.0),
    discriminator=DiscriminatorConfig((3,), (4, 6), (32,), 3),
)


def make(training, **options):
    return TokenizerTask(CONFIG, training, dtype=jnp.float32, precision="highest", **options)


@pytest.fixture(scope="module")
def learned():
    """The stage codes after 150 steps on one batch: task, groups, extras, metrics of every step."""
    task = make(CODES)
    params, extras = jax.jit(task.init)(jax.random.key(0))
    batch, optimizer = toy_batch(rows=2), optax.adam(3e-3)

    @partial(jax.jit, compiler_options=OPTIMIZED)
    def train(params, extras):
        def step(carry, i):
            params, extras, state = carry
            grads, extras, metrics = task.gradients(params, extras, batch, jax.random.key(i))
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), extras, state), metrics

        carry = (params, extras, optimizer.init(params))
        (params, extras, _), metrics = jax.lax.scan(step, carry, jnp.arange(150))
        return params, extras, metrics

    return (task, *jax.device_get(train(params, extras)))


@pytest.fixture(scope="module")
def checkpoint(learned):
    """The tree of the tokenizer after the stage codes."""
    task, params, extras, _ = learned
    return jax.device_get(task.tokenizer_params(params, extras))


def log_envelopes(wave, e, steps):
    """Mel spectra [B, T, steps * mels] of every code frame."""
    spectra = partial(
        log10_mel, window=e.window, mels=e.mels, sample_rate=24000, quiet=0.0, top=e.top
    )
    return envelope_spectra(jnp.asarray(wave), e.window, steps, spectra)


def test_codes_learn_to_tell_their_spectra(learned):
    metrics = learned[3]
    for name in ("envelope/32", "envelope/64"):
        assert metrics[name][-10:].mean() < metrics[name][0] / 20
    # Over ten roundings spectra fall 69 times at least, the teacher's loss 24 times.
    assert metrics["teacher"][-10:].mean() < metrics["teacher"][0] / 10
    assert "mel" not in metrics


def test_stage_codes_has_no_decoder_and_no_discriminator(learned):
    task, params, extras, _ = learned
    assert set(params) == {"generator"}
    assert set(params["generator"]["tokenizer"]["decoder"]) == {"quantizer"}
    assert "quantizer" not in extras["frozen"]["decoder"]
    first, frozen = jax.jit(task.init)(jax.random.key(0))
    before, after = (
        flatten_params(merge(p["generator"]["tokenizer"], e["frozen"]))
        for p, e in ((first, frozen), (params, extras))
    )
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {n for n in before if n.startswith("decoder/") and "quantizer" not in n}


def test_spectrum_losses_are_the_errors_of_a_head_of_two_frames():
    task, batch, key = make(CODES), toy_batch(rows=2), jax.random.key(5)
    params, extras = jax.jit(task.init)(jax.random.key(1))
    metrics = jax.jit(task.gradients)(params, extras, batch, key)[2]

    @jax.jit
    def vectors(params, extras):
        return task._pass(params["generator"], extras, batch["audio"], key).vectors

    x = np.asarray(vectors(params, extras))
    x = np.concatenate([x, np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], 1)], -1)
    head = jax.device_get(params["generator"]["heads"]["envelope"])

    def linear(name, x):
        return x @ head[name]["kernel"].T + head[name].get("bias", 0)

    predicted = linear("straight", x) + linear("bent", np.asarray(jax.nn.gelu(linear("hidden", x))))
    wide = log_envelopes(batch["audio"], ENVELOPE, 2)
    low = log_envelopes(batch["audio"], LOW, 1)
    assert predicted.shape == (2, 16, 13)
    for name, part, wanted in (("32", predicted[..., :10], wide), ("64", predicted[..., 10:], low)):
        expected = np.mean((part - np.asarray(wanted)) ** 2)
        np.testing.assert_allclose(metrics[f"envelope/{name}"], expected, rtol=1e-4)
        np.testing.assert_allclose(losses.spectrum_loss(part, wanted), expected, rtol=1e-5)


def test_loud_spectra_are_predicted_with_a_weight_of_their_own():
    loud = SpectrumConfig(window=64, mels=5, top=8000.0, loudness=True, weight=0.5)
    training = replace(CODES, spectra=(loud,), teacher_width=None)
    task, batch, key = make(training), toy_batch(rows=2), jax.random.key(5)
    params, extras = jax.jit(task.init)(jax.random.key(1))
    grown = jax.tree.map(lambda x: 0 * x, params["generator"]["heads"]["envelope"])
    params["generator"]["heads"]["envelope"] = grown
    metrics = jax.jit(task.gradients)(params, extras, batch, key)[2]
    # A head of zeros is off by the spectra themselves, of 64 samples up to the end of each frame.
    wave = jnp.pad(jnp.asarray(batch["audio"]), ((0, 0), (48, 0)))
    spectra = loudness_spectra(wave, 64, 5, 24000, 8000.0)
    np.testing.assert_allclose(metrics["envelope/64"], np.mean(spectra**2), rtol=1e-4)
    expected = 0.5 * 5.0 * metrics["envelope/64"] + 0.05 * metrics["commitment"]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_spectra_of_a_frame_hear_nothing_after_it():
    wave = np.random.default_rng(0).standard_normal((1, 4 * FRAME)).astype(np.float32)
    later = wave.copy()
    later[:, 2 * FRAME :] = 0
    a, b = (log_envelopes(x, ENVELOPE, 2) for x in (wave, later))
    np.testing.assert_array_equal(a[:, :2], b[:, :2])
    assert np.any(a[:, 2] != b[:, 2])


def test_stage_decoder_keeps_the_codes(checkpoint):
    task = make(DECODER, start=checkpoint)
    params, extras = jax.jit(task.init)(jax.random.key(0))
    assert set(params) == {"generator", "discriminator"}
    assert set(params["generator"]) == {"tokenizer"}
    assert set(params["generator"]["tokenizer"]) == {"decoder"}
    batch = {"audio": toy_batch(rows=2)["audio"]}
    grads, after, metrics = jax.jit(task.gradients)(params, extras, batch, jax.random.key(0))
    for name in ("books", "frozen"):
        jax.tree.map(np.testing.assert_array_equal, after[name], extras[name])
    still = {n for n, g in flatten_params(grads["generator"]).items() if not np.any(g)}
    assert not still
    assert {"mel", "loudness", "feature", "adversarial"} < set(metrics)
    out = jax.jit(task._pass)(params["generator"], extras, batch["audio"], jax.random.key(0))
    expected = jax.jit(disturbance, static_argnums=2)(
        out.samples, out.recorded, CONFIG.output_sample_rate
    )
    np.testing.assert_allclose(metrics["loudness"], expected, rtol=1e-3)
    assert metrics["pull/loudness"] > 0
    assert not {"commitment", "envelope/32", "teacher"} & set(metrics)
    codes = jax.jit(task.reconstruct)(params, extras, batch["audio"])[0]
    before = jax.jit(make(CODES, start=checkpoint).reconstruct)
    whole = jax.jit(make(CODES, start=checkpoint).init)(jax.random.key(9))
    np.testing.assert_array_equal(codes, before(*whole, batch["audio"])[0])


def test_a_cut_of_the_rows_is_decoded_and_judged(checkpoint):
    task = make(DECODER, start=checkpoint)
    params, extras = jax.jit(task.init)(jax.random.key(0))
    audio = toy_batch(rows=2)["audio"]
    run = jax.jit(lambda key: task._pass(params["generator"], extras, jnp.asarray(audio), key))

    @jax.jit
    def synthesize(crop):
        decoder = task._bind(params["generator"], extras).decoder
        return decoder.synthesize(crop, decoder.init_state(2, crop.dtype))[0]

    starts = set()
    for seed in range(12):
        out = jax.device_get(run(jax.random.key(seed)))
        assert out.samples.shape == out.recorded.shape == (2, 6 * FRAME)
        start = next(
            i
            for i in range(11)
            if np.array_equal(out.recorded, audio[:, i * FRAME : (i + 6) * FRAME])
        )
        expected = synthesize(out.vectors[:, start : start + 6])
        np.testing.assert_allclose(out.samples, expected, atol=1e-4)
        starts.add(start)
    assert len(starts) > 3


def test_a_checkpoint_comes_apart_as_it_was_put_together(checkpoint):
    trained, books = disassemble(CONFIG, checkpoint)
    jax.tree.map(np.testing.assert_array_equal, assemble(CONFIG, trained, books), checkpoint)
    for stage in ("codes", "decoder", "joint"):
        parts = split(trained, stage)
        jax.tree.map(np.testing.assert_array_equal, merge(*parts), trained)


def test_noise_below_the_quiet_level_counts_as_silence():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((1, 4000)).astype(np.float32)
    quiet, silence = jnp.asarray(1e-3 * noise), jnp.zeros((1, 4000))
    scales = ((256, 20), (1024, 40))
    assert losses.mel_loss(quiet, silence, scales, 24000, 5e-3) < 1e-6
    # The level itself is that of white noise, whatever the window.
    for window, mels in scales:
        for level, error in ((1e-3, 0.1), (2e-3, 0.25)):
            loud = losses.mel_loss(
                jnp.asarray(level * noise), silence, ((window, mels),), 24000, 1e-3
            )
            assert float(loud) < error
    assert losses.mel_loss(jnp.asarray(1e-2 * noise), silence, scales, 24000, 1e-3) > 1.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": "encoder"}, "joint, codes or decoder"),
        ({"spectra": (), "teacher_width": None}, "spectra or a teacher"),
        ({"spectra": (ENVELOPE, ENVELOPE)}, "same window"),
        ({"decoded_frames": 0}, "decoded_frames"),
        ({"noise_floor": -1.0}, "noise_floor"),
        ({"random_eq": -1.0}, "random_eq"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(CODES, **change)


def test_windows_that_do_not_fit_a_frame_are_refused():
    with pytest.raises(ConfigError, match="divide a code frame"):
        make(replace(CODES, spectra=(SpectrumConfig(window=40),)))


def test_a_decoder_without_codes_is_refused():
    with pytest.raises(ConfigError, match="start"):
        make(DECODER)
