"""Logit processors against the official ones, and the draws made from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import RequestError
from qtts_jax.generation.sampling import (
    batch_sampler,
    filter_logits,
    gumbel_noise,
    process_talker_logits,
    sample,
)
from qtts_jax.io.checkpoint import read_config


@pytest.fixture(scope="module")
def config(released):
    return TTSConfig.from_hf(read_config(released / "custom_voice")).talker


@pytest.mark.parametrize(("temperature", "k", "p"), [(0.9, 50, 1.0), (0.7, 0, 0.8), (1.3, 7, 0.6)])
def test_processed_probabilities_equal_the_official_ones(
    golden, detweights, golden_index, config, temperature, k, p
):
    data = golden("sampling")
    logits = detweights.symmetric(
        golden_index["seed"], "sampling/logits", (2, config.vocab_size), 6
    )
    seen = np.zeros((2, config.vocab_size), bool)
    np.put_along_axis(seen, data["history"], True, axis=1)
    params = [SamplingParams(temperature=temperature, top_k=k, top_p=p)] * 2
    sampler, method = batch_sampler(params)
    scores = process_talker_logits(
        jnp.asarray(logits), config, jnp.asarray(seen), jnp.full((2,), 12), jnp.full((2,), 1.05)
    )
    probabilities = jax.nn.softmax(filter_logits(scores, sampler, method), axis=-1)
    key = f"probs_t{temperature:g}_k{k}_p{p:g}"
    wanted = data[key]
    np.testing.assert_allclose(probabilities[:, : wanted.shape[1]], wanted, atol=1e-6)
    assert float(probabilities[:, wanted.shape[1] :].max()) == 0


def test_partial_selection_equals_the_full_sort():
    logits = jax.random.normal(jax.random.key(0), (4, 300))
    logits = logits.at[:, 10].set(logits[:, 20])  # a tie
    sampler, method = batch_sampler([SamplingParams(top_k=k) for k in (1, 5, 50, 64)])
    assert method.partial
    full = filter_logits(logits, sampler, method._replace(partial=False))
    np.testing.assert_array_equal(filter_logits(logits, sampler, method), full)


def test_ties_at_the_threshold_all_stay():
    logits = jnp.asarray([[3.0, 1.0, 1.0, 0.0]])
    sampler, method = batch_sampler([SamplingParams(top_k=2, temperature=1.0)])
    assert np.isfinite(filter_logits(logits, sampler, method)).sum() == 3


def test_end_of_speech_is_blocked_in_the_first_two_frames(config):
    logits = jnp.zeros((3, config.vocab_size)).at[:, config.eos_id].set(9.0)
    out = process_talker_logits(
        logits, config, jnp.zeros_like(logits, bool), jnp.asarray([0, 1, 2]), jnp.ones((3,))
    )
    np.testing.assert_array_equal(
        np.asarray(jnp.argmax(out, -1) == config.eos_id), [False, False, True]
    )
    assert np.all(np.isneginf(out[:, config.codebook_size : config.eos_id]))


def test_rows_with_different_settings_do_not_touch_each_other():
    logits = jax.random.normal(jax.random.key(1), (4, 100)) * 3
    keys = jax.random.split(jax.random.key(2), 4)
    params = [
        SamplingParams(do_sample=False),
        SamplingParams(top_k=3),
        SamplingParams(top_k=0, top_p=0.5),
        SamplingParams(temperature=2.0),
    ]
    noise = gumbel_noise(keys, 100)
    together = sample(logits, noise, *batch_sampler(params))
    alone = [
        sample(logits[i : i + 1], gumbel_noise(keys[i : i + 1], 100), *batch_sampler([p]))[0]
        for i, p in enumerate(params)
    ]
    np.testing.assert_array_equal(together, alone)
    assert int(together[0]) == int(jnp.argmax(logits[0]))


def test_draws_follow_the_distribution():
    logits = jnp.log(jnp.asarray([0.5, 0.3, 0.2]))
    n = 20000
    keys = jax.random.split(jax.random.key(3), n)
    sampler, method = batch_sampler([SamplingParams(temperature=1.0, top_k=0)] * n)
    drawn = sample(jnp.broadcast_to(logits, (n, 3)), gumbel_noise(keys, 3), sampler, method)
    np.testing.assert_allclose(np.bincount(drawn) / n, [0.5, 0.3, 0.2], atol=0.015)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"subtalker_top_p": -0.1}, "subtalker_top_p"),
        ({"temperature": np.inf}, "temperature"),
        ({"do_sample": False, "temperature": np.nan}, "temperature"),
        ({"do_sample": False, "subtalker_temperature": 0.0}, "use subtalker_dosample=False"),
        ({"repetition_penalty": 10**400}, "repetition_penalty must be a finite number"),
        ({"top_k": np.inf}, "top_k must be a whole number, not inf"),
        ({"top_k": np.nan}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_new_tokens": 1}, "max_new_tokens"),
        ({"top_k": 2.5}, "top_k"),
        ({"do_sample": 1}, "do_sample"),
        ({"temprature": 1.0}, "temprature"),
    ],
)
def test_impossible_settings_are_named(wrong, named):
    with pytest.raises(RequestError, match=named):
        SamplingParams().merge(wrong)


def test_none_keeps_the_default():
    assert SamplingParams().merge({"top_k": None, "top_p": 1}) == SamplingParams()


@pytest.mark.parametrize("wrong", [np.inf, np.nan])
@pytest.mark.parametrize("name", ["temperature", "top_p", "repetition_penalty"])
def test_settings_made_without_merge_are_finite_too(name, wrong):
    with pytest.raises(RequestError, match=name):
        SamplingParams(**{name: wrong})


def test_a_head_that_does_not_sample_reads_no_temperature():
    params = [
        SamplingParams().merge({"do_sample": False, "temperature": 0.0}),
        SamplingParams(temperature=0.5, top_k=0, top_p=0.9),
    ]
    logits = jax.random.normal(jax.random.key(0), (2, 50))
    sampler, method = batch_sampler(params)
    assert np.isfinite(filter_logits(logits, sampler, method)[0]).any()
    noise = gumbel_noise(jax.random.split(jax.random.key(1), 2), 50)
    assert int(sample(logits, noise, sampler, method)[0]) == int(jnp.argmax(logits[0]))
    predictor, _ = batch_sampler(
        [SamplingParams().merge({"subtalker_dosample": False, "subtalker_temperature": 0.0})],
        "subtalker_",
    )
    np.testing.assert_array_equal(predictor.temperature, [1.0])


def test_top_p_of_0_leaves_the_best_token():
    """As the official warper, which keeps one token whatever p is."""
    logits = jax.random.normal(jax.random.key(0), (3, 300))
    sampler, method = batch_sampler([SamplingParams(top_p=0.0)] * 3)
    kept = np.isfinite(filter_logits(logits, sampler, method))
    np.testing.assert_array_equal(kept.sum(-1), [1, 1, 1])
    np.testing.assert_array_equal(kept.argmax(-1), jnp.argmax(logits, -1))


def test_a_top_k_beyond_the_integers_of_the_device_keeps_all():
    logits = jax.random.normal(jax.random.key(0), (2, 300))
    sampler, method = batch_sampler([SamplingParams(top_k=k) for k in (5_000_000_000, 2**31)])
    assert sampler.top_k.dtype == np.int32
    assert np.isfinite(filter_logits(logits, sampler, method)).all()
