"""Training of talkers whose code predictor has a pattern of its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.data.talker_examples import Bucket, collate, layout_example
from qtts_jax.functional import abstract, bind, initialize
from qtts_jax.generation.prompt import SpeakerCondition, build_prompt
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import Session, generate_codes
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.optimizer import OptimizerConfig, optimizer
from qtts_jax.training.state import first_state
from qtts_jax.training.step import make_step
from qtts_jax.training.talker.flops import talker_flops
from qtts_jax.training.talker.predictor_targets import delayed_batch, predictor_targets
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from qtts_jax.training.talker.teacher_forcing import (
    forced_frames,
    forced_hidden,
    predictor_logits,
)
from tests.support.small_talker import (
    BOOKS,
    CLONING,
    ENTRIES,
    MODEL,
    ROLE,
    batch_of,
    small,
)


def with_pattern(config, pattern):
    predictor = dataclasses.replace(config.talker.code_predictor, pattern=pattern)
    talker = dataclasses.replace(config.talker, code_predictor=predictor)
    return dataclasses.replace(config, talker=talker)


PATTERNS = pytest.mark.parametrize("pattern", ["parallel", "delay"])


@PATTERNS
def test_the_pattern_is_written_and_read(pattern):
    config = with_pattern(MODEL, pattern)
    written = config.to_hf()["talker_config"]["code_predictor_config"]
    assert written["qtts_jax_pattern"] == pattern
    assert TTSConfig.from_hf(config.to_hf()) == config
    official = MODEL.to_hf()["talker_config"]["code_predictor_config"]
    assert "qtts_jax_pattern" not in official


@pytest.mark.slow
@PATTERNS
def test_one_batch_is_learned_with_finite_gradients(pattern):
    task = TalkerTask(TalkerTaskConfig(with_pattern(small(layers=1), pattern), dtype="float32"))
    batch = batch_of(4)
    config = OptimizerConfig(4e-3, warmup_steps=20, weight_decay=0.0)
    rules = dict.fromkeys(("talker", "code_predictor"), config)
    updates = {name: optimizer(c) for name, c in rules.items()}
    state = first_state(*task.init(jax.random.key(1)), updates, jax.random.key(2), False)
    grads, _, _ = jax.jit(task.gradients)(state.params, state.extras, batch, jax.random.key(0))
    for name, x in flatten_params(grads).items():
        assert np.isfinite(x).all(), name
        # Residual codes are predicted from the talker, so the predictor's loss reaches it.
        assert np.any(x), name
    step = make_step(task, rules, updates, 1, None)

    @jax.jit
    def many(state):
        return jax.lax.scan(lambda s, _: step(s, batch), state, length=150)

    _, metrics = many(state)
    first, last = metrics["ce_rest"][0], metrics["ce_rest"][-1]
    assert last < first / 4 and metrics["accuracy_rest"][-1] > 0.9


@pytest.mark.slow
@PATTERNS
def test_sampled_frames_and_chunks_estimate_the_loss_of_all(pattern):
    config = TalkerTaskConfig(with_pattern(MODEL, pattern), dtype="float32")
    batch = batch_of(4)
    params, extras = TalkerTask(config).init(jax.random.key(0))

    def rest(key, **changes):
        task = TalkerTask(dataclasses.replace(config, **changes))
        return task.loss(params, extras, batch, key)[1]["ce_rest"]

    whole = jax.jit(rest)(jax.random.key(0))
    in_chunks = jax.jit(lambda key: rest(key, predictor_chunk=5))(jax.random.key(0))
    np.testing.assert_allclose(in_chunks, whole, rtol=1e-5)
    keys = jax.random.split(jax.random.key(0), 40)
    found = np.asarray(jax.lax.map(lambda key: rest(key, predictor_frames=2), keys))
    assert abs(np.mean(found) - whole) < 4 * np.std(found) / np.sqrt(len(found))


def test_one_pass_a_frame_costs_fewer_flops():
    sequential, parallel, delay = (
        talker_flops(with_pattern(MODEL, p), 30, 8) for p in ("sequential", "parallel", "delay")
    )
    stack = MODEL.talker.code_predictor.transformer
    heads = stack.head_dim * (2 * stack.heads + 2 * stack.kv_heads)
    weights = stack.layers * stack.width * (heads + 3 * stack.ffn_width)
    width = MODEL.talker.transformer.width
    weights += 0 if width == stack.width else width * stack.width
    assert sequential - parallel > 6 * 8 * (BOOKS - 2) * weights
    # The talker takes as many steps more as a frame has residual codebooks.
    assert delay == talker_flops(with_pattern(MODEL, "parallel"), 30 + BOOKS - 1, 8 + BOOKS - 1)


def test_the_delay_pattern_is_trained_as_it_is_generated():
    """Greedy codes are the most probable ones of one pass over the frames that they make up."""
    config = with_pattern(CLONING, "delay")
    params = initialize(TTSModel, config, 1)
    params = jax.tree.map(lambda x: x if x.ndim < 2 else 5 * x, params)
    head = params["talker"]["codec_head"]
    head["kernel"] = head["kernel"].at[config.talker.eos_id].set(0)  # never the best
    reference = np.random.default_rng(0).integers(0, ENTRIES, (5, BOOKS))
    embedding = np.sin(np.arange(config.talker.transformer.width)).astype(np.float32)
    voices = [
        SpeakerCondition(embedding=embedding),
        SpeakerCondition(embedding=embedding, codes=reference, text_ids=(21, 22)),
        SpeakerCondition(embedding=embedding, codes=reference[:2], text_ids=(21, 22)),
    ]
    text = [11, 12, 13, 14, 15]
    prompts = [
        build_prompt(config, ROLE, text, voice=voice, stream_text=stream)
        for voice in voices
        for stream in (False, True)
    ]
    greedy = SamplingParams(do_sample=False, subtalker_dosample=False, repetition_penalty=1.0)
    limits = [7, 3, 1, 7, 2, 4]
    requests = [
        Request(prompt, dataclasses.replace(greedy, max_new_tokens=limit + 1), seed=0)
        for prompt, limit in zip(prompts, limits, strict=True)
    ]
    codes = generate_codes(Session(config, params, requests))
    assert [len(c) for c in codes] == limits
    examples = [layout_example(config, p, c) for p, c in zip(prompts, codes, strict=True)]
    batch = collate(config, examples, Bucket(max(len(e.rows) for e in examples) + 1, 8))
    graph = abstract(TTSModel, config)[0]

    @jax.jit
    def best(params, batch):
        model = bind(graph, params)
        hidden = forced_hidden(model, delayed_batch(config, batch))
        wanted = predictor_targets(config, batch)
        outputs = forced_frames(hidden, batch, wanted.first.shape[1])  # [B, S, D]
        first = model.talker.embed_codec(wanted.first)
        flat = [x.reshape(-1, x.shape[-1]) for x in (outputs, first, wanted.codes)]
        rest = predictor_logits(model.code_predictor, *flat).reshape(*wanted.codes.shape, -1)
        firsts = model.talker.logits(outputs)[..., : config.talker.codebook_size]
        return wanted, jnp.argmax(firsts, -1), jnp.argmax(rest, -1)

    with jax.default_matmul_precision("highest"):
        wanted, first, rest = best(params, batch)
    spoken = np.arange(wanted.first.shape[1]) < np.array(limits)[:, None]
    np.testing.assert_array_equal(first[spoken], wanted.first[spoken])
    assert np.sum(wanted.real) == sum(limits) * (BOOKS - 1)
    np.testing.assert_array_equal(rest[wanted.real], wanted.codes[wanted.real])
    assert len(np.unique(np.concatenate(codes))) > 20


def test_a_cut_row_has_no_steps_after_its_last_frame():
    batch = batch_of(2)
    cut = batch | {"ends": np.array([True, False])}
    wanted = predictor_targets(with_pattern(MODEL, "delay"), cut)
    frames = batch["frames"]
    assert wanted.steps.tolist() == [frames[0] + BOOKS - 1, frames[1]]
    real = np.asarray(wanted.real)
    assert real[0].sum() == frames[0] * (BOOKS - 1)
    assert not real[1, frames[1] :].any()
    for q in range(1, BOOKS):
        np.testing.assert_array_equal(np.flatnonzero(real[1, :, q - 1]), np.arange(q, frames[1]))
