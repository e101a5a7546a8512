"""Allocations that a device refuses, as one sentence."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.device_memory import memory_faults
from qtts_jax.errors import DeviceMemoryError
from qtts_jax.tts import qwen_tts
from qtts_jax.tts.voices import CustomVoice


def allocate_too_much(*_, **__):
    """Raise what JAX raises for an array of 4 TB."""
    return jnp.zeros((1 << 42,), np.uint8).block_until_ready()


def test_an_allocation_that_fails_is_one_sentence_with_its_size():
    with (
        pytest.raises(DeviceMemoryError, match=r"a batch \(an array of 4398.0 GB\); halve"),
        memory_faults("a batch", "halve it"),
    ):
        allocate_too_much()


def test_other_faults_of_the_device_pass():
    fault = jax.errors.JaxRuntimeError("INTERNAL: something else")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory_faults("a", "b"):
        raise fault


def test_speech_that_does_not_fit_names_the_remedies(tts, monkeypatch):
    model = tts("custom_voice")
    monkeypatch.setattr(qwen_tts, "synthesize", allocate_too_much)
    message = re.escape("1 texts at once") + ".*max_new_tokens"
    with pytest.raises(DeviceMemoryError, match=message):
        model.generate([CustomVoice("Hello.", model.default_speaker)])
