"""What the discriminators say of decoded audio, and what they learn from it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qtts_jax.functional import Params, abstract, bind, cast
from qtts_jax.training.tokenizer import losses
from qtts_jax.training.tokenizer.config import DiscriminatorConfig
from qtts_jax.training.tokenizer.discriminators import Discriminators

# The generator's losses that the discriminators give.
JUDGED = ("adversarial", "feature")

# Logits and layer outputs of every discriminator.
Judgement = tuple[list[jax.Array], list[list[jax.Array]]]


class AdversarialOutput(NamedTuple):
    """What one look at decoded audio gives both sides.

    Attributes:
        values: the generator's losses by name.
        pulls: their gradients for the samples, [B, N].
        grads: gradients of the discriminators.
        loss: of the discriminators.
    """

    values: dict[str, jax.Array]
    pulls: dict[str, jax.Array]
    grads: Params
    loss: jax.Array


def judge(
    config: DiscriminatorConfig, params: Params, fake: jax.Array, real: jax.Array, dtype: Any
) -> AdversarialOutput:
    """One pass over real and one over decoded audio serve both sides.

    All gradients of the decoded audio are pulls through the same pass.

    Args:
        params: of the discriminators, float32.
        fake, real: [B, N] decoded and recorded samples.
        dtype: of the computation.
    """
    graph = abstract(Discriminators, config)[0]

    def look(params: Params, wave: jax.Array) -> Judgement:
        return bind(graph, cast(params, dtype))(wave)

    on_real, pull_real = jax.vjp(lambda p: look(p, real), params)
    on_fake, pull_fake = jax.vjp(look, params, fake)

    def hinge(real: Judgement, fake: Judgement) -> jax.Array:
        return losses.discriminator_loss(real[0], fake[0])

    loss, (d_real, d_fake) = jax.value_and_grad(hinge, (0, 1))(on_real, on_fake)
    grads = jax.tree.map(jnp.add, pull_real(d_real)[0], pull_fake(d_fake)[0])
    values, pulls = {}, {}
    for name, of in (
        ("adversarial", lambda fake: losses.adversarial_loss(fake[0])),
        ("feature", lambda fake: losses.feature_loss(on_real[1], fake[1])),
    ):
        values[name], d_fake = jax.value_and_grad(of)(on_fake)
        pulls[name] = pull_fake(d_fake)[1]
    return AdversarialOutput(values, pulls, grads, loss)


def no_adversarial_output(params: Params, fake: jax.Array) -> AdversarialOutput:
    """What discriminators say and learn before their start: nothing."""
    zero = jnp.zeros((), jnp.float32)
    return AdversarialOutput(
        dict.fromkeys(JUDGED, zero),
        dict.fromkeys(JUDGED, jnp.zeros_like(fake)),
        jax.tree.map(jnp.zeros_like, params),
        zero,
    )
