"""Losses of decoded samples against recorded ones, and their weighted gradient for the samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qtts_jax.dsp.loudness import disturbance
from qtts_jax.functional import Params
from qtts_jax.training.tokenizer import losses
from qtts_jax.training.tokenizer.adversarial import (
    ADVERSARIAL_LOSSES,
    AdversarialOutput,
    adversarial_losses,
    no_adversarial_output,
)
from qtts_jax.training.tokenizer.config import TokenizerTraining
from qtts_jax.training.tokenizer.gradient_balance import balanced, first_norms, weighted

DISCRIMINATOR = "discriminator"


class SampleLosses(NamedTuple):
    """Losses of a batch of decoded samples.

    Attributes:
        values: the generator's losses by name.
        d_samples: gradient of their weighted or balanced sum for the samples, [B, N].
        grads: {"discriminator": gradients of the discriminators}; {} without them.
        norms: moving averages of gradient norms after this batch.
        metrics: `pull/LOSS`, the norm of each gradient times its weight, and the `discriminator`
            loss.
    """

    values: dict[str, jax.Array]
    d_samples: jax.Array
    grads: dict[str, Params]
    norms: dict[str, jax.Array]
    metrics: dict[str, jax.Array]


def first_balance(training: TokenizerTraining) -> dict[str, jax.Array]:
    """Moving averages of gradient norms before training; {} where losses are not balanced."""
    if training.balance is None:
        return {}
    names = ["mel", *(["loudness"] if training.weights.loudness else [])]
    if training.discriminator is not None:
        names += ADVERSARIAL_LOSSES
    return first_norms(names)


def sample_losses(
    training: TokenizerTraining,
    sample_rate: int,
    discriminators: Params | None,
    samples: jax.Array,
    recorded: jax.Array,
    step: jax.Array,
    norms: dict[str, jax.Array],
    dtype: Any,
) -> SampleLosses:
    """Mel, loudness, adversarial and feature-matching losses with all their gradients.

    Args:
        training: weights, balance, scales and the start of the discriminators.
        sample_rate: Hz.
        discriminators: their parameters, float32; None without any.
        samples, recorded: [B, N] float32.
        step: optimizer steps so far.
        norms: moving averages of gradient norms (`first_balance`).
        dtype: of the discriminators' computation.
    """
    t = training
    by_name = dataclasses.asdict(t.weights)
    compared: dict[str, Callable[[jax.Array], jax.Array]] = {
        "mel": lambda x: losses.mel_loss(x, recorded, t.mel_scales, sample_rate, t.noise_floor)
    }
    if t.weights.loudness:
        compared["loudness"] = lambda x: disturbance(x, recorded, sample_rate)
    values, sample_grads, grads, metrics = {}, {}, {}, {}
    for name, loss in compared.items():
        values[name], sample_grads[name] = jax.value_and_grad(loss)(samples)
    config = t.discriminator
    if config is not None and discriminators is not None:

        def active(params: Params) -> AdversarialOutput:
            return adversarial_losses(config, params, samples, recorded, dtype)

        if t.discriminator_start == 0:
            output = active(discriminators)
        else:
            output = jax.lax.cond(
                step >= t.discriminator_start,
                active,
                lambda params: no_adversarial_output(params, samples),
                discriminators,
            )
        grads[DISCRIMINATOR] = output.grads
        # A loss without a gradient is left out of the balance.
        started = step >= t.generator_start
        sample_grads |= {n: jnp.where(started, g, 0) for n, g in output.sample_grads.items()}
        values |= output.values
        metrics["discriminator"] = output.loss
    metrics |= {f"pull/{n}": by_name[n] * jnp.linalg.norm(g) for n, g in sample_grads.items()}
    if t.balance is None:
        d_samples = weighted(sample_grads, by_name)
    else:
        d_samples, norms = balanced(sample_grads, by_name, norms, t.balance)
    return SampleLosses(values, d_samples, grads, norms, metrics)
