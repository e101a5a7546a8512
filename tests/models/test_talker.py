"""Talker and code predictor against the official ones, from hidden states to codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import abstract, bind
from qtts_jax.io.checkpoint import load_params, read_config
from qtts_jax.models.tts_model import TTSModel
from tests.support.helpers import CHECKPOINTS, assert_close

BOOK = 64  # codebook entries of the golden checkpoints


@pytest.fixture(scope="module", params=CHECKPOINTS)
def case(request, converted, golden):
    name = request.param
    directory = converted(name)
    graphdef, tree = abstract(TTSModel, TTSConfig.from_hf(read_config(directory)))
    model = bind(graphdef, load_params(directory, tree))
    with jax.default_matmul_precision("highest"):
        yield name, model, golden(f"talker_{name}")


def left_aligned(x, lengths):
    """Left-padded rows [B, T, ...] as right-padded ones."""
    out = np.zeros_like(x)
    for row, source, n in zip(out, x, lengths, strict=True):
        row[:n] = source[len(source) - n :]
    return out


# Whole methods are compiled: run operation by operation, a model compiles some hundred programs.
def forward(model):
    """`talker.step`, and hidden states to logits."""
    return jax.jit(model.talker.step), jax.jit(model.talker.logits)


def prefilled(case, detweights, golden_index):
    name, model, data = case
    lengths = data["mask"].sum(1)
    width = model.config.talker.transformer.width
    shape = (*data["mask"].shape, width)
    x = detweights.symmetric(golden_index["seed"], f"talker/{name}/emb", shape, 1.5)
    x = left_aligned(x * data["mask"][..., None], lengths)
    state = model.talker.init_state(len(lengths), jnp.float32, 16)
    y, state = forward(model)[0](jnp.asarray(x), state, jnp.asarray(lengths))
    return y, state, lengths


def test_prefill_of_unequal_prompts(case, detweights, golden_index):
    _, model, data = case
    y, _, lengths = prefilled(case, detweights, golden_index)
    wanted = left_aligned(data[f"prefill_h{model.config.talker.transformer.layers}"], lengths)
    logits = left_aligned(data["prefill_logits"], lengths)
    got = np.asarray(forward(model)[1](y))[..., : logits.shape[-1]]
    y = np.asarray(y)
    for row, n in enumerate(lengths):
        assert_close(y[row, :n], wanted[row, :n])
        assert_close(got[row, :n], logits[row, :n])
    assert_close(y[np.arange(len(lengths)), lengths - 1], data["past_hidden"][:, 0])


def test_decode_steps(case, detweights, golden_index):
    name, model, data = case
    seed, width = golden_index["seed"], model.config.talker.transformer.width
    y, state, lengths = prefilled(case, detweights, golden_index)
    hidden = np.asarray(y)[np.arange(2), lengths - 1]
    step, head = forward(model)
    frame = jax.jit(
        lambda hidden, row: model.code_predictor.generate(
            hidden, row, lambda logits, _: jnp.argmax(logits, -1)
        )
    )
    first = detweights.integers(seed, f"talker/{name}/tok", (3, 2, 1), BOOK)[..., 0]
    text = detweights.symmetric(seed, f"talker/{name}/trail", (2, 2, width), 1.5)
    pad = detweights.symmetric(seed, f"talker/{name}/pad", (1, 1, width), 1.5)
    for s in range(3):
        row = model.talker.embed_codec(jnp.asarray(first[s]))
        codes, total = frame(hidden, row)
        np.testing.assert_array_equal(codes, data[f"step{s}_codes"][:, 1:])
        x = row + total + (text[:, s] if s < 2 else pad[:, 0])
        assert_close(x, data[f"step{s}_input_embed"])
        y, state = step(x[:, None], state)
        hidden = np.asarray(y)[:, 0]
        assert_close(hidden, data[f"step{s}_hidden"])
        wanted = data[f"step{s}_logits"]
        assert_close(head(hidden)[:, : wanted.shape[1]], wanted)


def test_teacher_forced_code_predictor(case, detweights, golden_index):
    name, model, data = case
    seed, width = golden_index["seed"], model.config.talker.transformer.width
    codes = detweights.integers(seed, f"talker/{name}/cpcodes", (5, 16), BOOK)
    hidden = detweights.symmetric(seed, f"talker/{name}/cphid", (5, width), 1.5)
    first = model.talker.embed_codec(jnp.asarray(codes[:, 0]))
    forced = jax.jit(model.code_predictor.teacher_forced)
    logits = forced(jnp.asarray(hidden), first, codes[:, 1:])
    assert_close(logits, data["cp_teacher_logits"])


def test_generation_agrees_with_teacher_forcing(case):
    _, model, _ = case
    width = model.config.talker.transformer.width
    hidden, first = jax.random.normal(jax.random.key(0), (2, 3, width))
    seen = []

    def best(logits, book):
        jax.debug.callback(lambda x, b: seen.append((int(b), np.asarray(x))), logits, book)
        return jnp.argmax(logits, -1)

    generate = jax.jit(lambda *given: model.code_predictor.generate(*given, best))
    codes, total = generate(hidden, first)
    jax.effects_barrier()
    logits = np.asarray(jax.jit(model.code_predictor.teacher_forced)(hidden, first, codes))
    np.testing.assert_array_equal(codes, np.argmax(logits, -1))
    for book, chosen_from in seen:
        assert_close(chosen_from, logits[:, book - 1])
    assert_close(total, model.code_predictor.embed(codes))
