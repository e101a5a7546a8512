"""Direct preference optimization (DPO) of the talker on pairs of speech for one prompt."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params
from qtts_jax.training.preference.objectives import dpo
from qtts_jax.training.preference.task import PolicyConfig, SpeechPolicyTask
from qtts_jax.training.task import Extras, Groups, Metrics


@dataclass(frozen=True)
class PreferenceTaskConfig:
    """How a talker learns from preferences.

    Attributes:
        policy: the talker and what of it is trained.
        beta: strength of the reference, see `objectives.dpo`.
        sft_weight: weight of the mean negative log-probability of the codes of chosen speech, which
            keeps it from becoming less probable together with rejected speech.

    Raises:
        ConfigError: `beta` is not above 0, or `sft_weight` is below 0.
    """

    policy: PolicyConfig
    beta: float = 0.1
    sft_weight: float = 0.0

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ConfigError(f"beta must be above 0, not {self.beta}.")
        if self.sft_weight < 0:
            raise ConfigError(f"sft_weight must be 0 or more, not {self.sft_weight}.")


class PreferenceTask(SpeechPolicyTask):
    """A `Task` over batches of `PairBatches`: pairs [B, 2, ...], chosen before rejected.

    The reference is the model that training began with.
    """

    def __init__(self, config: PreferenceTaskConfig, initial: Params | None = None) -> None:
        super().__init__(config.policy, initial)
        self.config = config

    def loss(
        self, params: Groups, extras: Extras, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The mean loss of the pairs, with margins and how often chosen speech is ahead."""
        del key
        c = self.config
        both = {name: x.reshape(-1, *x.shape[2:]) for name, x in batch.items()}  # [2 B, ...]
        found, present = self.log_probs(params, extras, both)  # [2 B, N]
        reference = self.reference_log_probs(extras, both)
        ratio = jnp.sum(found - reference, axis=1).reshape(-1, 2)  # [B, 2]
        margin = ratio[:, 0] - ratio[:, 1]
        preference = jnp.mean(dpo(margin, c.beta))
        pairs = (x.reshape(-1, 2, x.shape[1]) for x in (found, present))
        chosen, counted = (x[:, 0] for x in pairs)  # [B, N]
        sft = -jnp.mean(jnp.sum(chosen, axis=1) / jnp.maximum(jnp.sum(counted, axis=1), 1))
        loss = preference + c.sft_weight * sft
        return loss, {
            "loss": loss,
            "preference": preference,
            "sft": sft,
            "margin": c.beta * jnp.mean(margin),
            "accuracy": jnp.mean((margin > 0).astype(jnp.float32)),
            "ratio_chosen": c.beta * jnp.mean(ratio[:, 0]),
            "ratio_rejected": c.beta * jnp.mean(ratio[:, 1]),
        }
