"""Whole greedy calls of the official package: prompt embeddings, codes and audio."""

import functools
import json
import re

import jax
import numpy as np
import pytest

from qtts_jax.functional import abstract, bind
from qtts_jax.generation.batch import stack_prompts
from qtts_jax.generation.frame_step import embed_prompt
from qtts_jax.models.tts_model import TTSModel
from tests.support.helpers import GOLDEN, assert_close

INDEX = json.loads((GOLDEN / "index.json").read_text())
GREEDY = {"do_sample": False, "subtalker_dosample": False}


@pytest.fixture(scope="module")
def reference_audio(detweights):
    """`ref0` and `ref1` of the index as (array, rate)."""

    def load(description):
        name, samples, rate = re.match(r"wave\(seed,'(.+)',(\d+),(\d+)\)", description).groups()
        return detweights.wave(INDEX["seed"], name, int(samples), int(rate)), int(rate)

    return {name: load(text) for name, text in INDEX["ref_audio"].items()}


def arguments(case, reference_audio):
    kwargs = dict(case["kwargs"])
    if "ref_audio" in kwargs:
        named = kwargs["ref_audio"]
        many = isinstance(named, list)
        kwargs["ref_audio"] = (
            [reference_audio[n] for n in named] if many else reference_audio[named]
        )
    return kwargs | GREEDY


@pytest.mark.parametrize("name", INDEX["cases"])
def test_call(name, tts, golden, reference_audio, monkeypatch):
    case, data = INDEX["cases"][name], golden(f"gen_{name}")
    model = tts(case["ckpt"])
    prepared, spoken = [], []
    synthesize = model.synthesize
    monkeypatch.setattr(
        model,
        "synthesize",
        lambda requests: prepared.extend(requests) or spoken.extend(synthesize(requests)) or spoken,
    )
    waves, rate = getattr(model, case["method"])(**arguments(case, reference_audio))

    assert rate == 24000
    check_prompts(model, [r.prompt for r in prepared], data)
    for i, (speech, wave) in enumerate(zip(spoken, waves, strict=True)):
        np.testing.assert_array_equal(speech.codes, data[f"codes{i}"])
        assert len(wave) == data[f"wav{i}_len"][0]
        stride = 1 if len(data[f"wav{i}"]) == len(wave) else 11
        np.testing.assert_allclose(wave[::stride], data[f"wav{i}"], rtol=0, atol=1e-4)


@functools.partial(jax.jit, static_argnums=0)
def embedded(config, params, batch, trailing):
    """Prompts [B, T, D] and trailing texts [B, N, D] as the talker gets them."""
    net = bind(abstract(TTSModel, config)[0], params)
    return embed_prompt(net, batch), net.talker.embed_text(trailing)


def check_prompts(model, prompts, data):
    """Embedded prompts and trailing text equal the official inputs of the talker."""
    rows, longest, width = data["inputs_embeds"].shape
    # Sizes that several calls share, so that few programs are compiled.
    batch = stack_prompts(prompts, rows, -(-longest // 64) * 64, width)
    texts = np.zeros((rows, 64), np.int32)
    for text, prompt in zip(texts, prompts, strict=True):
        text[: len(prompt.trailing)] = prompt.trailing
    x, all_trailing = map(np.asarray, embedded(model.config, model.params, batch, texts))
    pad = data["tts_pad_embed"][0, 0]
    for i, prompt in enumerate(prompts):
        n = len(prompt)
        assert n == data["attention_mask"][i].sum()
        assert_close(x[i, :n], data["inputs_embeds"][i, longest - n :])
        trailing = all_trailing[i, : len(prompt.trailing)]
        wanted = data["trailing_text_hidden"][i]
        assert_close(
            np.concatenate([trailing, np.tile(pad, (len(wanted) - len(trailing), 1))]), wanted
        )
