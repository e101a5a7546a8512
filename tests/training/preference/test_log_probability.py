"""Teacher-forced log-probabilities are those with which generation drew the speech."""

import dataclasses

import jax
import numpy as np
import pytest

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.data.talker_examples import Bucket, collate, layout_example
from qtts_jax.errors import ConfigError
from qtts_jax.functional import initialize
from qtts_jax.generation.prompt import SpeakerCondition, build_prompt
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import Session, generate_codes
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.preference.log_probability import drawn_log_probs
from qtts_jax.training.preference.policy_task import PolicyTask, PolicyTaskConfig
from qtts_jax.training.preference.task import PolicyConfig
from tests.support.drawn_speech import drawn_speech
from tests.support.small_talker import BOOKS, MODEL, ROLE

FRAMES = 8
PLAIN = SamplingParams(repetition_penalty=1.0, top_k=0, temperature=1.0, subtalker_top_k=0)
FILTERED = SamplingParams(
    repetition_penalty=1.3, top_k=5, temperature=0.7, subtalker_top_k=7, subtalker_temperature=1.4
)
NUCLEUS = SamplingParams(repetition_penalty=1.1, top_k=30, top_p=0.6, subtalker_top_p=0.8)


@pytest.fixture(scope="module")
def params():
    found = initialize(TTSModel, MODEL, 0)
    # The ends of speech must come within few frames, and not in all rows.
    kernel = found["talker"]["codec_head"]["kernel"]
    found["talker"]["codec_head"]["kernel"] = kernel.at[MODEL.talker.eos_id].multiply(12.0)
    return jax.tree.map(lambda x: 4 * x if x.ndim > 1 else x, found)


def requests(sampling, count=5):
    out = []
    for i in range(count):
        prompt = build_prompt(
            MODEL,
            ROLE,
            list(range(10, 14 + 2 * i)),
            voice=SpeakerCondition(speaker="ryan"),
            language="english",
            stream_text=bool(i % 2),
        )
        settings = dataclasses.replace(sampling, max_new_tokens=FRAMES + 1)
        out.append(Request(prompt, settings, seed=40 + i))
    return out


def policy_task(sampling, books, params):
    policy = PolicyConfig(MODEL, sampling, books=books, dtype="float32")
    return PolicyTask(PolicyTaskConfig(policy, kl_weight=0.0), params)


def batch_of(requested, spoken):
    examples = [
        layout_example(MODEL, r.prompt, codes, ends=len(codes) < FRAMES)
        for r, codes in zip(requested, spoken, strict=True)
    ]
    return collate(MODEL, examples, Bucket(44, FRAMES + 2))


@pytest.mark.parametrize("sampling", [PLAIN, FILTERED, NUCLEUS], ids=["plain", "top-k", "top-p"])
def test_log_probabilities_are_those_of_the_rollout(params, monkeypatch, sampling):
    requested = requests(sampling)
    spoken = generate_codes(Session(MODEL, params, requested))
    codes, drawn = drawn_speech(MODEL, params, requested, FRAMES, monkeypatch)
    for row, own in zip(codes, spoken, strict=True):
        np.testing.assert_array_equal(row[row[:, 0] >= 0], own)
    ends = [len(own) < FRAMES for own in spoken]
    assert any(ends) and not all(ends)
    task = policy_task(sampling, "all", params)
    groups, extras = task.init(jax.random.key(0))
    found, present = jax.jit(task.log_probs)(groups, extras, batch_of(requested, spoken))
    for i, own in enumerate(spoken):
        first = drawn[i, : len(own) + ends[i], 0]
        rest = drawn[i, : len(own), 1:].ravel()
        wanted = np.concatenate([first, rest])
        assert len(wanted) == len(own) * BOOKS + ends[i] == present[i].sum()
        np.testing.assert_allclose(found[i][present[i]], wanted, atol=2e-5)
    assert (np.asarray(found)[~present] == 0).all()


def test_the_first_codebook_alone_is_the_beginning_of_all(params):
    requested = requests(PLAIN)
    batch = batch_of(requested, generate_codes(Session(MODEL, params, requested)))
    both = []
    for books in ("first", "all"):
        task = policy_task(PLAIN, books, params)
        groups, extras = task.init(jax.random.key(0))
        both.append(jax.jit(task.log_probs)(groups, extras, batch))
    (first, present), (every, _) = both
    assert first.shape == (5, FRAMES + 3)
    np.testing.assert_allclose(first, every[:, : FRAMES + 3], atol=1e-6)
    assert present.sum() == batch["frames"].sum() + batch["ends"].sum()


def test_an_id_that_another_model_would_not_draw_has_a_finite_log_probability():
    logits = np.asarray([[4.0, 3.0, 2.0, 1.0]] * 2, np.float32)
    sampling = SamplingParams(top_k=2, temperature=1.0)
    found = drawn_log_probs(logits, np.asarray([0, 3]), sampling)
    best = np.exp([4.0, 3.0])
    np.testing.assert_allclose(found[0], np.log(best[0] / best.sum()), rtol=1e-5)
    np.testing.assert_allclose(found[1], 1 - np.log(best.sum() + np.exp(1)), rtol=1e-5)
    gradient = jax.grad(lambda x: drawn_log_probs(x, np.asarray([0, 3]), sampling).sum())(logits)
    assert np.isfinite(gradient).all() and gradient[0, 2] == 0


def test_a_policy_that_cannot_learn_is_refused():
    greedy = SamplingParams(subtalker_dosample=False)
    PolicyConfig(MODEL, greedy)
    with pytest.raises(ConfigError, match="set subtalker_dosample to True"):
        PolicyConfig(MODEL, greedy, books="all")
    with pytest.raises(ConfigError, match="nothing would be trained"):
        PolicyConfig(MODEL, PLAIN, train=())
    with pytest.raises(ConfigError, match="first or all"):
        PolicyConfig(MODEL, PLAIN, books="some")
