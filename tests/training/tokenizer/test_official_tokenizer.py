"""A tokenizer trained here does the same in the official package."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert.to_torch import to_torch
from qtts_jax.io.checkpoint import save_params
from qtts_jax.training.tokenizer.task import TokenizerTask
from tests.support.helpers import assert_close
from tests.support.small_tokenizer import PLAIN, toy_audio, toy_config

official = pytest.importorskip("golden.official", reason="needs the official package")
pytestmark = pytest.mark.slow


def test_trained_tokenizer_gives_the_same_codes_and_audio(tmp_path):
    import torch

    config = toy_config()
    weights = replace(PLAIN.weights, mel=100.0)
    task = TokenizerTask(
        config, replace(PLAIN, weights=weights), dtype=jnp.float32, precision="highest"
    )
    params, extras = jax.jit(task.init)(jax.random.key(0))
    audio = toy_audio(4, 30)

    @jax.jit
    def step(params, extras, key):
        grads, extras, _ = task.gradients(params, extras, {"audio": audio}, key)
        return jax.tree.map(lambda p, g: p - 1e-4 * jnp.sign(g), params, grads), extras

    for i in range(5):
        params, extras = step(params, extras, jax.random.key(i))
    codes, samples = jax.device_get(jax.jit(task.reconstruct)(params, extras, audio))
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "config.json").write_text(json.dumps(config.to_hf()))
    save_params(tmp_path / "ours", task.tokenizer_params(params, extras))
    to_torch(tmp_path / "ours", tmp_path / "torch", report=lambda message: None)

    model = official.Qwen3TTSTokenizerV2Model.from_pretrained(tmp_path / "torch").eval()
    with torch.no_grad():
        found = model.encode(torch.tensor(audio), torch.ones(audio.shape, dtype=torch.long))
        waves = model.decode(torch.tensor(codes).long()).audio_values
    # Constant codes would hide a wrong export.
    assert all(len(np.unique(codes[..., book])) > 5 for book in range(4))
    np.testing.assert_array_equal(np.stack([c.numpy() for c in found.audio_codes]), codes)
    assert_close(np.stack([w.numpy() for w in waves]), samples)
