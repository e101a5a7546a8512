"""Intermediate values of the 12 Hz tokenizer against the official package (1e-4 relative)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.configs.tokenizer_12hz import Quirks12Hz, Tokenizer12HzConfig
from qtts_jax.functional import bind
from qtts_jax.layers.attention import attention_context
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.speech_tokenizer.base import SpeechTokenizer
from tests.support.helpers import GOLDEN, assert_close, released_params

SEED = 1234


@pytest.fixture(scope="module")
def tokenizer(converted):
    return SpeechTokenizer.from_pretrained(converted("base"), exact_reference=True)


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


def transformer_layers(model, x):
    """Outputs of every layer of a stack, before its final norm."""
    batch, steps, _ = x.shape
    state = model.init_state(batch, x.dtype, 0 if model.config.window else steps)
    slots = state.layers[0].keys.shape[1]
    shared = attention_context(model.config, state.position, steps, slots, None)
    outputs = []
    for layer, layer_state in zip(model.layers, state.layers, strict=True):
        x, _ = layer.step(x, layer_state, shared)
        outputs.append(x)
    return outputs


def test_decoder_intermediates(tokenizer, golden):
    file = golden("tok12_decode")
    codes = np.zeros((2, *file["codes0"].shape), np.int32)
    codes[0], codes[1, : len(file["codes1"])] = file["codes0"], file["codes1"]

    @jax.jit
    def run(params):
        d = bind(tokenizer.programs.decoder, params)
        out = {"quantized": d.quantizer.decode(codes, jnp.float32)}
        out["pre_conv"] = d.pre_conv(out["quantized"])
        x = d.input_projection(out["pre_conv"])
        for i, y in enumerate(transformer_layers(d.transformer, x)):
            out[f"tr_layer{i}"] = y
        x = out["pre_transformer"] = d.output_projection(d.transformer(x))
        for i, stage in enumerate(d.upsample):
            out[f"up{i}_conv"] = stage.transposed(x)
            x = out[f"up{i}_next"] = stage(x)
        x = out["dec0"] = d.input_conv(x)
        for i, stage in enumerate(d.stages):
            x = stage(x)
            out[f"dec{i + 1}"] = x[:, ::17]
        out[f"dec{len(d.stages) + 1}"] = d.output_activation(x)[:, ::17]
        return out

    for name, ours in run(tokenizer.params["decoder"]).items():
        channels_last = name.startswith(("tr_layer", "pre_transformer"))
        official = file[name] if channels_last else file[name].swapaxes(1, 2)
        assert_close(ours, official)


@pytest.mark.parametrize("item", range(2))
def test_encoder_intermediates(tokenizer, golden, detweights, item):
    file = golden("tok12_encode")
    n = int(file[f"n{item}"][0])
    wave = detweights.wave(SEED, f"tok12/wave{item}", n, 24000)
    frames = -(-n // 1920)
    padded = np.full((1, frames * 1920), np.nan, np.float32)
    padded[0, :n] = wave

    @jax.jit
    def run(params):
        e = bind(tokenizer.programs.encoder, params)
        lengths = jnp.array([n])
        state = e.init_state(1, jnp.float32, frames)
        seanet, _ = e.seanet.step(padded[..., None], state.seanet, lengths)
        latent, _ = e.transformer.step(seanet, state.transformer, -(-lengths // 960))
        return seanet, latent, e.embed(padded, state, lengths)[0]

    seanet, latent, frame = run(tokenizer.params["encoder"])
    steps = -(-n // 960)
    assert_close(seanet[:, :steps], file[f"seanet{item}"].swapaxes(1, 2))
    assert_close(latent[:, :steps], file[f"transformer{item}"])
    assert_close(frame, file[f"downsample{item}"].swapaxes(1, 2))


def test_released_sizes(golden, detweights):
    file = golden("real_tok12")
    path = GOLDEN / "configs" / "Qwen3-TTS-Tokenizer-12Hz.config.json"
    data = json.loads(path.read_text())
    config = Tokenizer12HzConfig.from_hf(data)
    params = released_params(data, Tokenizer12Hz, config, detweights, SEED + 20)
    tokenizer = SpeechTokenizer.from_params(config, params, quirks=Quirks12Hz.official())
    (wave,), _ = tokenizer.decode(file["codes"][0].T)
    assert np.abs(wave[::5] - file["wav"]).max() < 1e-4
    codes = tokenizer.encode((detweights.wave(SEED, "real/wave", 72077, 24000), 24000))[0]
    # The smallest gap between two distances is 3e-4 here; rounding may decide a few near ties.
    assert (codes != file["enc_codes"]).mean() < 0.01

    exact = SpeechTokenizer.from_params(tokenizer.config, tokenizer.params, quirks=Quirks12Hz())
    np.testing.assert_allclose(exact.decode(file["codes"][0].T)[0][0], wave, atol=1e-5)
