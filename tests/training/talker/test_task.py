"""Losses and gradients of the talker: values, chunks, frozen parts, overfitting, batches."""

import dataclasses
import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.data.talker_examples import (
    Bucket,
    Utterance,
    collate,
    layout_example,
    layout_utterance,
)
from qtts_jax.data.talker_layout import LayoutChoice
from qtts_jax.errors import ConfigError, RequestError, TrainingError
from qtts_jax.functional import abstract, bind, cast
from qtts_jax.generation.prompt import SpeakerCondition, build_prompt
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.optimizer import OptimizerConfig, optimizer
from qtts_jax.training.state import first_state
from qtts_jax.training.step import make_step
from qtts_jax.training.talker.flops import talker_flops
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from qtts_jax.training.talker.teacher_forcing import forced_hidden, noisy_frames
from tests.support.small_talker import BOOKS, CLONING, MODEL, ROLE, batch_of, small, utterances

TASK = TalkerTaskConfig(MODEL, dtype="float32")


@pytest.fixture(scope="module")
def params():
    groups, extras = TalkerTask(TASK).init(jax.random.key(0))
    assert extras == {"frozen": {}}
    return groups


@pytest.fixture(scope="module")
def batch():
    return batch_of(4)


@functools.cache
def program(config):
    return jax.jit(TalkerTask(config).gradients)


def value_and_gradients(config, params, batch):
    with jax.default_matmul_precision("highest"):
        grads, _, metrics = program(config)(params, {"frozen": {}}, batch, jax.random.key(0))
    return metrics, flatten_params(grads)


@pytest.fixture(scope="module")
def reference(params, batch):
    return value_and_gradients(TASK, params, batch)


def assert_same_gradients(found, wanted):
    assert found.keys() == wanted.keys()
    scale = max(float(np.abs(x).max()) for x in wanted.values())
    for name, x in wanted.items():
        np.testing.assert_allclose(found[name], x, rtol=0, atol=1e-5 * scale, err_msg=name)


def test_loss_is_the_mean_cross_entropy_of_an_independent_computation(params, batch, reference):
    metrics, _ = reference
    graphdef = abstract(TTSModel, MODEL)[0]
    hidden = jax.jit(lambda p, b: forced_hidden(bind(graphdef, p), b))(params, batch)
    hidden, params = np.asarray(hidden), jax.tree.map(np.asarray, params)
    firsts, rests = [], []
    for row in range(4):
        for s in range(batch["frames"][row] + 1):
            h = hidden[row, batch["start"][row] + s]
            last = s == batch["frames"][row]
            frame = batch["codes"][row, min(s, batch["codes"].shape[1] - 1)]
            target = MODEL.talker.eos_id if last else frame[0]
            p = softmax(params["talker"]["codec_head"]["kernel"] @ h)
            firsts.append(-np.log(p[target]))
            if not last:
                embedded = params["talker"]["codec_embedding"]["table"][frame[0]]
                rests.append((h, embedded, frame[1:]))
    h, embedded, codes = (np.stack(x) for x in zip(*rests, strict=True))
    logits = jax.jit(lambda p, *x: bind(graphdef, p).code_predictor.teacher_forced(*x))(
        params, h, embedded, codes
    )
    rest = -np.log(np.take_along_axis(softmax(np.asarray(logits)), codes[..., None], axis=-1))
    np.testing.assert_allclose(metrics["ce_first"], np.mean(firsts), rtol=1e-4)
    np.testing.assert_allclose(metrics["ce_rest"], rest.mean(), rtol=1e-4)
    np.testing.assert_allclose(
        metrics["loss"], metrics["ce_first"] + 0.3 * metrics["ce_rest"], rtol=1e-6
    )


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"predictor_chunk": 5, "remat": "blocks"},
        pytest.param({"remat": "blocks"}, marks=pytest.mark.slow),
        pytest.param({"remat": "products"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_chunks_and_rematerialisation_change_nothing(params, batch, reference, changes):
    metrics, grads = value_and_gradients(dataclasses.replace(TASK, **changes), params, batch)
    for name in reference[0]:
        np.testing.assert_allclose(metrics[name], reference[0][name], rtol=1e-5, err_msg=name)
    assert_same_gradients(grads, reference[1])


def test_what_lies_behind_the_rows_changes_neither_loss_nor_gradients(params, batch, reference):
    spoiled = {name: x.copy() for name, x in batch.items()}
    behind = np.arange(batch["text"].shape[1]) >= batch["lengths"][:, None]
    assert behind.any(axis=1).sum() > 1
    spoiled["text"][behind], spoiled["codec"][behind], spoiled["residual"][behind] = 7, 8, 9
    spoiled["codes"][np.arange(8) >= batch["frames"][:, None]] = 5
    metrics, grads = value_and_gradients(TASK, params, spoiled)
    np.testing.assert_allclose(metrics["loss"], reference[0]["loss"], rtol=1e-6)
    assert_same_gradients(grads, reference[1])


def test_halves_of_a_batch_of_unequal_rows_average_to_the_whole(params, batch, reference):
    assert len(set(batch["frames"].tolist())) > 1
    # Each half twice: the same means as the half alone.
    halves = [{k: np.tile(v[i : i + 2], (2,) + (1,) * (v.ndim - 1)) for k, v in batch.items()}
              for i in (0, 2)]  # fmt: skip
    found = [value_and_gradients(TASK, params, half) for half in halves]
    loss = np.mean([m["loss"] for m, _ in found])
    np.testing.assert_allclose(loss, reference[0]["loss"], rtol=1e-6)
    mean = {name: (found[0][1][name] + found[1][1][name]) / 2 for name in reference[1]}
    assert_same_gradients(mean, reference[1])


def test_sampled_frames_estimate_the_loss_of_all(params, batch, reference):
    config = dataclasses.replace(TASK, predictor_frames=2)
    task = TalkerTask(config)

    def estimate(key):
        return task.loss(params, {"frozen": {}}, batch, key)[1]["ce_rest"]

    found = np.asarray(jax.lax.map(estimate, jax.random.split(jax.random.key(0), 40)))
    error = np.std(found) / np.sqrt(len(found))
    assert 0 < error < 0.1
    assert abs(np.mean(found) - reference[0]["ce_rest"]) < 4 * error


def test_reading_loss_asks_every_frame_for_the_token_of_an_even_pace(params, batch, reference):
    config = dataclasses.replace(TASK, alignment_weight=0.5)
    graphdef = abstract(TTSModel, MODEL)[0]

    def parts(p, b):
        model = bind(graphdef, p)
        words = jnp.arange(MODEL.talker.text_vocab_size)
        return forced_hidden(model, b), model.talker.embed_text(words)

    hidden, classes = (np.asarray(x) for x in jax.jit(parts)(params, batch))
    texts, wanted = [u.text_ids for u in utterances(4)], []
    for row, text in enumerate(texts):
        frames = int(batch["frames"][row])
        for s in range(frames):
            p = softmax(classes @ hidden[row, batch["start"][row] + s])
            wanted.append(-np.log(p[text[(2 * s + 1) * len(text) // (2 * frames)]]))
    with jax.default_matmul_precision("highest"):
        loss, metrics = jax.jit(TalkerTask(config).loss)(
            params, {"frozen": {}}, batch, jax.random.key(0)
        )
    np.testing.assert_allclose(metrics["reading"], np.mean(wanted), rtol=1e-4)
    np.testing.assert_allclose(loss, reference[0]["loss"] + 0.5 * np.mean(wanted), rtol=1e-4)


def test_an_utterance_without_text_has_no_alignment_targets():
    mute = dataclasses.replace(utterances(1)[0], text_ids=())
    example = layout_utterance(MODEL, ROLE, mute, LayoutChoice(preset=True))
    assert example.spoken is None
    bucket = Bucket(len(example.rows), len(example.codes), 0 if example.mel is None else 4096)
    assert (collate(MODEL, [example], bucket)["spoken"] == -1).all()


def test_noise_replaces_part_of_the_input_frames_and_nothing_else(batch):
    batch = {name: np.repeat(x, 200, axis=0) for name, x in batch.items()}
    noisy = noisy_frames(MODEL, batch, jax.random.key(0), 0.6)
    at = np.arange(batch["codec"].shape[1]) - batch["start"][:, None] - 1
    is_frame = (at >= 0) & (at < batch["frames"][:, None])
    changed = (np.asarray(noisy["residual"]) != batch["residual"]).any(-1)
    changed |= np.asarray(noisy["codec"]) != batch["codec"]
    assert not changed[~is_frame].any()
    shares = (changed & is_frame).sum(1) / is_frame.sum(1)
    assert abs(shares.mean() - 0.3) < 0.03 and shares.min() == 0
    assert all(noisy[n] is x for n, x in batch.items() if n not in ("codec", "residual"))
    assert noisy["codec"][changed].max() < MODEL.talker.codebook_size


def test_bfloat16_is_near_float32(params, batch, reference):
    task = TalkerTask(dataclasses.replace(TASK, dtype="bfloat16"))
    loss, _ = jax.jit(task.loss)(params, {"frozen": {}}, batch, jax.random.key(0))
    assert loss != reference[0]["loss"]
    np.testing.assert_allclose(loss, reference[0]["loss"], rtol=1e-2)
    grads = jax.eval_shape(task.gradients, params, {"frozen": {}}, batch, jax.random.key(0))[0]
    assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_every_parameter_learns_the_speaker_encoder_from_mels():
    config = dataclasses.replace(TASK, model=small("base", layers=1))
    params, _ = TalkerTask(config).init(jax.random.key(0))
    assert set(params) == {"talker", "code_predictor", "speaker_encoder"}
    _, grads = value_and_gradients(config, params, batch_of(4, mels=True))
    assert [n for n, g in grads.items() if not jnp.any(g)] == []


def test_gradients_scatter_no_activations():
    # A scatter adds number by number, which is slow on a GPU.
    config = TalkerTaskConfig(
        small("base", layers=1), "float32", predictor_frames=4, code_noise=0.5, alignment_weight=1.0
    )
    task, batch = TalkerTask(config), batch_of(4, mels=True)
    params, extras = task.init(jax.random.key(0))
    text = jax.jit(task.gradients).lower(params, extras, batch, jax.random.key(0)).as_text()
    found = re.findall(
        r'"stablehlo.scatter".*?unique_indices = (\w+).*?tensor<([\dx]+)x\w+>\) -> ',
        text,
        re.DOTALL,
    )
    assert len(found) == text.count('"stablehlo.scatter"') > 0
    added = [math.prod(map(int, shape.split("x"))) for unique, shape in found if unique == "false"]
    whole = batch["mel"].shape[0] * batch["mel"].shape[1] * 16  # the narrowest activation
    assert sum(added) < whole / 2


def test_parts_that_the_start_lacks_are_random():
    config = dataclasses.replace(TASK, model=small("base", layers=1))
    whole, _ = TalkerTask(config).init(jax.random.key(0))
    start = {"talker": jax.tree.map(lambda x: x.astype(jnp.bfloat16), whole["talker"])}
    params, _ = TalkerTask(config, start).init(jax.random.key(1))
    chex.assert_trees_all_equal(params["talker"], cast(start["talker"], jnp.float32))
    assert params.keys() == whole.keys()
    first, second = (jax.tree.leaves(p["speaker_encoder"]) for p in (whole, params))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_frozen_parts_are_extras(batch):
    config = dataclasses.replace(TASK, train=("code_predictor",))
    task = TalkerTask(config)
    groups, extras = jax.eval_shape(task.init, jax.random.key(0))
    assert set(groups) == {"code_predictor"}
    assert set(extras["frozen"]) == {"talker"}
    grads, after, _ = jax.eval_shape(task.gradients, groups, extras, batch, jax.random.key(0))
    assert set(grads) == {"code_predictor"}
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, extras)


def test_one_batch_can_be_learned_by_heart(batch):
    task = TalkerTask(dataclasses.replace(TASK, model=small(layers=1)))
    config = OptimizerConfig(4e-3, warmup_steps=20, weight_decay=0.0)
    rules = dict.fromkeys(("talker", "code_predictor"), config)
    updates = {name: optimizer(c) for name, c in rules.items()}
    state = first_state(*task.init(jax.random.key(1)), updates, jax.random.key(2), False)
    step = make_step(task, rules, updates, 1, None)

    @jax.jit
    def many(state):
        state, metrics = jax.lax.scan(lambda s, _: step(s, batch), state, length=150)
        return state, jax.tree.map(lambda x: x[-1], metrics)

    state, metrics = many(state)
    state, metrics = many(state)
    assert metrics["ce_first"] < 0.05 and metrics["ce_rest"] < 0.05
    assert metrics["accuracy_first"] == pytest.approx(1, abs=1e-5)
    assert metrics["accuracy_rest"] == pytest.approx(1, abs=1e-5)


def test_text_left_at_the_last_frame_is_dropped_and_missing_text_is_pad():
    prompt = build_prompt(MODEL, ROLE, [11, 12, 13, 14], voice=SpeakerCondition(), stream_text=True)
    assert len(prompt.trailing) == 4
    for frames, wanted in ((2, [12, 13]), (6, [12, 13, 14, 102, 100, 100])):
        example = layout_example(MODEL, prompt, np.zeros((frames, BOOKS), int))
        assert example.rows.text[len(prompt) :].tolist() == wanted
        assert example.start == len(prompt) - 1


def test_a_cut_has_no_end():
    prompt = build_prompt(MODEL, ROLE, [11], voice=SpeakerCondition())
    found = [
        layout_example(MODEL, prompt, np.zeros((3, BOOKS), int), ends=e) for e in (True, False)
    ]
    batch = collate(MODEL, found, Bucket(32, 4))
    assert batch["mean_targets"].tolist() == [3.5, 3.5]
    assert batch["mean_frames"].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((0, BOOKS), int), "at least one frame"),
        (np.zeros((3, 8), int), r"codes \[frames, 4\]"),
        (np.full((3, BOOKS), 2048), "codebook 0 must be from 0 to 2047, not 2048"),
        (np.full((3, BOOKS), -1), "not -1 to -1"),
    ],
)
def test_codes_that_do_not_fit_are_one_clear_error(codes, message):
    prompt = build_prompt(MODEL, ROLE, [11], voice=SpeakerCondition())
    with pytest.raises(TrainingError, match=message):
        layout_example(MODEL, prompt, codes)


def test_faults_of_examples_and_configurations():
    example = layout_example(
        MODEL, build_prompt(MODEL, ROLE, [11], voice=SpeakerCondition()), np.zeros((3, BOOKS), int)
    )
    with pytest.raises(TrainingError, match="example 0 needs"):
        collate(MODEL, [example], Bucket(32, 2))
    short = dataclasses.replace(example, mel=np.zeros((1, 128), np.float32))
    with pytest.raises(TrainingError, match="speaker encoder needs"):
        collate(CLONING, [short], Bucket(32, 4, 16))
    with pytest.raises(ConfigError, match="type base"):
        collate(MODEL, [short], Bucket(32, 4, 16))
    with pytest.raises(ConfigError, match="unknown parts"):
        TalkerTaskConfig(MODEL, train=("vocoder",))
    u = Utterance((11,), np.zeros((2, BOOKS), int), speaker="nobody")
    with pytest.raises(RequestError, match="unknown speaker"):
        layout_utterance(MODEL, ROLE, u, LayoutChoice(preset=True))


def test_flops_are_six_for_each_weight_and_position():
    """Checked against the number of matrix weights in the parameter tree."""
    tree = flatten_params(abstract(TTSModel, MODEL)[1])
    talker = [x for n, x in tree.items() if n.startswith("talker") and "embedding" not in n]
    weights = sum(x.size for x in talker if x.ndim > 1)
    c, length = MODEL.talker.transformer, 10
    attention = 3 * c.layers * length * 2 * c.heads * c.head_dim * (length + 1)
    one_book = dataclasses.replace(MODEL.talker, code_predictor=None)
    alone = dataclasses.replace(MODEL, talker=one_book)
    assert talker_flops(alone, length, 8) == pytest.approx(6 * length * weights + attention)
    predictor = [x for n, x in tree.items() if n.startswith("code_predictor")]
    stack = sum(x.size for x in predictor if x.ndim > 1 and x.ndim != 3)
    assert talker_flops(MODEL, length, 8) - talker_flops(alone, length, 8) > 6 * 8 * BOOKS * stack
