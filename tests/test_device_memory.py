"""Allocations that a device refuses, as one sentence."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.device_memory import check_memory
from qtts_jax.errors import DeviceMemoryError
from qtts_jax.tts import synthesis
from qtts_jax.tts.voices import CustomVoice


def allocate_too_much(*_, **__):
    """Raise what JAX raises for an array of 4 TB."""
    return jnp.zeros((1 << 42,), np.uint8).block_until_ready()


def test_an_allocation_that_fails_is_one_sentence_with_its_size():
    with pytest.raises(jax.errors.JaxRuntimeError) as refused:
        allocate_too_much()
    with pytest.raises(DeviceMemoryError, match=r"a batch \(an array of 4398.0 GB\); halve"):
        check_memory(refused.value, "a batch", "halve it")


def test_other_faults_of_the_device_pass():
    check_memory(jax.errors.JaxRuntimeError("INTERNAL: something else"), "a", "b")


def test_speech_that_does_not_fit_names_the_remedies(tts, monkeypatch):
    model = tts("custom_voice")
    monkeypatch.setattr(synthesis, "Session", allocate_too_much)
    message = re.escape("1 texts at once") + ".*max_new_tokens"
    with pytest.raises(DeviceMemoryError, match=message):
        model.generate([CustomVoice("Hello.", model.default_speaker)])


def test_a_stream_that_does_not_fit_names_the_remedies(tts, monkeypatch):
    model = tts("custom_voice")
    monkeypatch.setattr(synthesis, "Session", allocate_too_much)
    with pytest.raises(DeviceMemoryError, match="for the stream.*max_new_tokens"):
        next(model.stream(CustomVoice("Hello.", model.default_speaker)))


def test_other_faults_of_a_batch_pass(tts, monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    model = tts("custom_voice")
    monkeypatch.setattr(synthesis, "Session", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        model.generate([CustomVoice("Hello.", model.default_speaker)])
