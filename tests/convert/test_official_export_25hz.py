"""A 25 Hz tokenizer made here, exported, does the same in the official package."""

import json
from dataclasses import replace
from unittest import mock

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from convert.to_orbax import to_orbax
from convert.to_torch import to_torch
from qtts_jax.configs.presets import tiny_tokenizer_25hz, tokenizer_25hz
from qtts_jax.configs.tokenizer_25hz import Quirks25Hz
from qtts_jax.functional import initialize
from qtts_jax.io.checkpoint import flatten_params, iterate_params, save_params
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.speech_tokenizer.programs_25hz_decode import decode_programs
from qtts_jax.speech_tokenizer.programs_25hz_encode import encode_programs
from qtts_jax.speech_tokenizer.whole_decode_25hz import decode_whole
from tests.support.helpers import assert_close

official = pytest.importorskip(
    "tests.golden_tools.official_25hz_encoder", reason="needs the official package"
)
pytestmark = pytest.mark.slow


def quiet(message):
    pass


@pytest.fixture(scope="module")
def config():
    """Sizes unlike those of the golden checkpoint."""
    config = tiny_tokenizer_25hz(tokenizer_25hz())
    encoder = replace(config.encoder, entries=80, codebook_width=20, window=30, max_positions=45)
    dit = replace(config.decoder.dit, code_entries=85)
    return replace(config, encoder=encoder, decoder=replace(config.decoder, dit=dit))


@pytest.fixture(scope="module")
def params(config):
    return initialize(Tokenizer25Hz, config, seed=3)


@pytest.fixture(scope="module")
def exported(config, params, tmp_path_factory):
    """The exported folder and the official model loaded from it, every tensor accounted for."""
    import torch
    from qwen_tts.core import Qwen3TTSTokenizerV1Config, Qwen3TTSTokenizerV1Model

    folder = tmp_path_factory.mktemp("export")
    (folder / "made").mkdir()
    (folder / "made" / "config.json").write_text(json.dumps(config.to_hf()))
    save_params(folder / "made", params)
    to_torch(folder / "made", folder / "torch", report=quiet)
    data = json.loads((folder / "torch" / "config.json").read_text())
    data.pop("model_type")
    model = Qwen3TTSTokenizerV1Model(Qwen3TTSTokenizerV1Config(**data)).eval()
    stored = load_file(folder / "torch" / "model.safetensors")
    own = {name: value.numpy() for name, value in model.state_dict().items()}
    for name in ("encoder.tokenizer.positional_embedding", "decoder.dit.rotary_embed.inv_freq"):
        np.testing.assert_allclose(stored[name], own[name], rtol=1e-5, atol=1e-5)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in stored.items()})
    return folder, model


def test_the_official_encoder_gives_the_same_codes(config, params, exported, detweights):
    waves = [detweights.wave(5, f"x{n}", n, 16000) for n in (16000, 5000, 26001)]
    theirs = official.run(exported[1].encoder, waves)
    assert theirs["gap"] > 1e-4
    programs = encode_programs(config.encoder, Quirks25Hz.official())
    with jax.default_matmul_precision("highest"):
        ours = programs.encode(params["encoder"], waves)
    for a, b in zip(ours, theirs["codes"], strict=True):
        np.testing.assert_array_equal(a, b)
    # Constant codes would hide a wrong export.
    assert len(np.unique(np.concatenate(ours))) > 3


def test_the_official_decoder_gives_the_same_audio(config, params, exported):
    import torch

    rng, dit = np.random.default_rng(4), config.decoder.dit
    codes = rng.integers(0, 85, (2, 21)).astype(np.int32)
    frames = codes.shape[1] * dit.repeats
    noise = rng.normal(size=(2, frames, dit.n_mels)).astype(np.float32)
    xvector = rng.normal(size=(2, dit.xvector_width)).astype(np.float32)
    reference = rng.normal(size=(2, 40, dit.n_mels)).astype(np.float32) - 3
    drawn = mock.patch.object(torch, "randn", return_value=torch.tensor(noise))
    with torch.no_grad(), drawn:
        theirs = exported[1].decode(*map(torch.tensor, (codes, xvector, reference)))
    with jax.default_matmul_precision("highest"):
        ours = decode_whole(
            decode_programs(config.decoder),
            params["decoder"],
            codes,
            np.full(2, codes.shape[1]),
            xvector,
            reference,
            noise,
        )
    assert_close(ours, np.stack([wave.numpy() for wave in theirs.audio_values]))


def test_the_export_comes_back_bit_for_bit(params, exported, tmp_path):
    to_orbax(exported[0] / "torch", tmp_path / "back", report=quiet)
    back = dict(iterate_params(tmp_path / "back"))
    want = flatten_params(params)
    assert back.keys() == want.keys()
    for name, array in want.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
