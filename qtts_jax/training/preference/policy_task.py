"""Policy optimization of the talker by rewards of its own speech (GSPO, GRPO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params
from qtts_jax.training.preference.objectives import Clip, grpo, gspo, kl_to_reference
from qtts_jax.training.preference.task import PolicyConfig, SpeechPolicyTask
from qtts_jax.training.task import Extras, Groups, Metrics

SCORE = "score/"
# What the papers use: a ratio of whole sequences moves far less than that of a code.
CLIPS = {"gspo": Clip(3e-4, 4e-4), "grpo": Clip(0.2, 0.28)}


@dataclass(frozen=True)
class PolicyTaskConfig:
    """How a talker learns from rewards.

    Attributes:
        policy: the talker and what of it is trained.
        objective: "gspo", whose ratio is that of a sequence, or "grpo", one for each code.
        clip: of the ratio; None for the usual one of the objective. It matters only where several
            updates share one set of rollouts.
        kl_weight: of the KL divergence to the start, nats a code; 0 for none.

    Raises:
        ConfigError: another objective, a negative weight, or bounds that are not above 0.
    """

    policy: PolicyConfig
    objective: Literal["gspo", "grpo"] = "gspo"
    clip: Clip | None = None
    kl_weight: float = 0.01

    def __post_init__(self) -> None:
        if self.objective not in CLIPS:
            raise ConfigError(f"objective must be gspo or grpo, not {self.objective!r}.")
        if self.clip is not None and not (0 < self.clip.low < 1 and self.clip.high > 0):
            raise ConfigError(
                f"a ratio is clipped to 1 - low and 1 + high, with low in (0, 1) and high above 0, "
                f"not {tuple(self.clip)}."
            )
        if self.kl_weight < 0:
            raise ConfigError(f"kl_weight must be 0 or more, not {self.kl_weight}.")


class PolicyTask(SpeechPolicyTask):
    """A `Task` over batches of `RolloutBatches`: speech of the policy with its advantages."""

    def __init__(self, config: PolicyTaskConfig, initial: Params | None = None) -> None:
        super().__init__(config.policy, initial, with_reference=config.kl_weight > 0)
        self.config = config

    def loss(
        self, params: Groups, extras: Extras, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The negative objective of a batch, with what it consists of and the mean scores.

        Args:
            batch: of `collate`, with `advantage`, `weight` and `reward` [B] and `score/NAME` [B];
                `drawn_log_probs` [B, N] by the model that drew the speech, unless `params` did.
        """
        del key
        c = self.config
        found, present = self.log_probs(params, extras, batch)  # [B, N]
        before = batch.get("drawn_log_probs", jax.lax.stop_gradient(found))
        gain = {"gspo": gspo, "grpo": grpo}[c.objective]
        gains, clipped = gain(
            found - before, present, batch["advantage"], c.clip or CLIPS[c.objective]
        )
        weight = batch["weight"]
        objective = jnp.mean(weight * gains)
        codes = jnp.sum(present, axis=1)
        metrics = {
            "objective": objective,
            "clipped": jnp.mean(clipped),
            "surprisal": -jnp.mean(jnp.sum(found, axis=1) / codes),
            "kept": jnp.mean((weight > 0).astype(jnp.float32)),
            "frames": jnp.mean(batch["frames"].astype(jnp.float32)),
            "ended": jnp.mean(batch["ends"].astype(jnp.float32)),
            "reward": jnp.mean(batch["reward"]),
        }
        metrics |= {name: jnp.mean(x) for name, x in batch.items() if name.startswith(SCORE)}
        loss = -objective
        if c.kl_weight:
            kl = kl_to_reference(found, self.reference_log_probs(extras, batch), present)
            loss = loss + c.kl_weight * jnp.mean(weight * kl)
            metrics["kl"] = jnp.mean(kl)
        return loss, metrics | {"loss": loss}
