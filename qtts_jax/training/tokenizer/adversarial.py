"""Adversarial and feature-matching losses, and the discriminators' own gradients, in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qtts_jax.functional import Params, abstract, bind, cast
from qtts_jax.training.tokenizer import losses
from qtts_jax.training.tokenizer.config import DiscriminatorConfig
from qtts_jax.training.tokenizer.discriminators import Discriminators

# Names of the generator's losses that come from the discriminators.
ADVERSARIAL_LOSSES = ("adversarial", "feature")

# Logits and layer outputs of every discriminator.
DiscriminatorOutput = tuple[list[jax.Array], list[list[jax.Array]]]


class AdversarialOutput(NamedTuple):
    """Losses and gradients of generator and discriminators for one batch.

    Attributes:
        values: the generator's losses by name.
        sample_grads: their gradients with respect to the decoded samples, [B, N].
        grads: gradients of the discriminators.
        loss: the hinge loss of the discriminators.
    """

    values: dict[str, jax.Array]
    sample_grads: dict[str, jax.Array]
    grads: Params
    loss: jax.Array


def adversarial_losses(
    config: DiscriminatorConfig, params: Params, fake: jax.Array, real: jax.Array, dtype: Any
) -> AdversarialOutput:
    """Losses of both sides from one pass over recorded and one over decoded audio.

    All gradients with respect to the decoded audio share the vjp of one pass.

    Args:
        params: parameters of the discriminators, float32.
        fake, real: [B, N] decoded and recorded samples.
        dtype: of the computation.
    """
    graph = abstract(Discriminators, config)[0]

    def discriminate(params: Params, wave: jax.Array) -> DiscriminatorOutput:
        return bind(graph, cast(params, dtype))(wave)

    on_real, vjp_real = jax.vjp(lambda p: discriminate(p, real), params)
    on_fake, vjp_fake = jax.vjp(discriminate, params, fake)

    def hinge(real: DiscriminatorOutput, fake: DiscriminatorOutput) -> jax.Array:
        return losses.discriminator_loss(real[0], fake[0])

    loss, (d_real, d_fake) = jax.value_and_grad(hinge, (0, 1))(on_real, on_fake)
    grads = jax.tree.map(jnp.add, vjp_real(d_real)[0], vjp_fake(d_fake)[0])
    values, sample_grads = {}, {}
    for name, of in (
        ("adversarial", lambda fake: losses.adversarial_loss(fake[0])),
        ("feature", lambda fake: losses.feature_loss(on_real[1], fake[1])),
    ):
        values[name], d_fake = jax.value_and_grad(of)(on_fake)
        sample_grads[name] = vjp_fake(d_fake)[1]
    return AdversarialOutput(values, sample_grads, grads, loss)


def no_adversarial_output(params: Params, fake: jax.Array) -> AdversarialOutput:
    """Zeros in place of `adversarial_losses`, before the discriminators start."""
    zero = jnp.zeros((), jnp.float32)
    return AdversarialOutput(
        dict.fromkeys(ADVERSARIAL_LOSSES, zero),
        dict.fromkeys(ADVERSARIAL_LOSSES, jnp.zeros_like(fake)),
        jax.tree.map(jnp.zeros_like, params),
        zero,
    )
