"""Parameters, frozen reference and log-probabilities: what both post-training tasks share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, abstract, bind, cast, matmul_precision
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.preference.log_probability import Books, speech_log_probs
from qtts_jax.training.talker.full_sequence import AttentionKernel, Remat
from qtts_jax.training.talker.lora import LoraConfig
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from qtts_jax.training.task import Extras, Groups, Metrics, Task


@dataclass(frozen=True)
class PolicyConfig:
    """The talker as a policy: which codes it decides, and which parameters are trained.

    Attributes:
        model: sizes and ids.
        sampling: how its speech is drawn; log-probabilities are those of this sampler.
        books: "first": the policy is codebook 0, and the residual codebooks of the speech are
            inputs only; "all": every codebook.
        dtype: of the computation; master weights are float32.
        train: parts whose own parameters are trained; the others are frozen.
        lora: adapters on frozen parts, or None.
        remat, attention, predictor_attention: see `run_stack`.

    Raises:
        ConfigError: a codebook of the policy is not sampled, or no parameter is trained.
    """

    model: TTSConfig
    sampling: SamplingParams
    books: Books = "first"
    dtype: str = "bfloat16"
    train: tuple[str, ...] = ("talker",)
    lora: LoraConfig | None = None
    remat: Remat = "none"
    attention: AttentionKernel = "auto"
    predictor_attention: AttentionKernel = "auto"

    def __post_init__(self) -> None:
        if self.books not in ("first", "all"):
            raise ConfigError(f"books must be first or all, not {self.books!r}.")
        names = ("do_sample", "subtalker_dosample")
        for name in names[: 1 if self.books == "first" else 2]:
            if not getattr(self.sampling, name):
                raise ConfigError(
                    f"greedy codes have no probability to learn from; set {name} to True."
                )
        if not self.train and self.lora is None:
            raise ConfigError("nothing would be trained; name parts in train, or give lora.")


class SpeechPolicyTask(Task):
    """A `Task` whose model gives speech a probability, beside the frozen model it began as.

    Extras are `frozen`, the parts that are not trained, and `reference`, the start of the trained
    ones in the computation dtype; adapters start at zero, so their reference needs no copy.

    Args:
        initial: parameters to begin with (`TTSModel`, any floating dtype).
        with_reference: keep the start.
    """

    def __init__(
        self, policy: PolicyConfig, initial: Params | None = None, with_reference: bool = True
    ) -> None:
        self.policy = policy
        self.start = initial
        self._with_reference = with_reference
        self._talker = TalkerTask(
            TalkerTaskConfig(
                policy.model, dtype=policy.dtype, train=policy.train, lora=policy.lora
            ),
            initial,
        )
        self._graphdef = abstract(TTSModel, policy.model)[0]

    def init(self, key: jax.Array, start: Params | None = None) -> tuple[Groups, Extras]:
        """See `Task.init`."""
        groups, extras = self._talker.init(key, start)
        if self._with_reference:
            own = {name: group for name, group in groups.items() if name != "lora"}
            # Copied, since the trainer donates the trained parameters.
            extras["reference"] = jax.tree.map(jnp.copy, cast(own, jnp.dtype(self.policy.dtype)))
        return groups, extras

    def gradients(
        self, params: Groups, extras: Extras, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[Groups, Extras, Metrics]:
        """See `Task.gradients`; the extras stay as they are."""
        grads, metrics = jax.grad(self.loss, has_aux=True)(params, extras, batch, key)
        return grads, extras, metrics

    @abstractmethod
    def loss(
        self, params: Groups, extras: Extras, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The loss of a batch, and the metrics to log."""

    def axes(self) -> Groups:
        """Logical axes of the groups."""
        return self._talker.axes()

    def model_params(self, params: Groups, extras: Extras) -> Params:
        """All parameters of the model: trained and frozen parts, adapters merged."""
        return self._talker.model_params(params, extras)

    def log_probs(
        self, params: Groups, extras: Extras, batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Log-probabilities [B, N] of the speech of a batch, and where there are codes."""
        return self._log_probs(self.model_params(params, extras), batch)

    def reference_log_probs(self, extras: Extras, batch: dict[str, jax.Array]) -> jax.Array:
        """Log-probabilities [B, N] of the speech of a batch by the start of the training."""
        found, _ = self._log_probs(extras["frozen"] | extras["reference"], batch)
        return jax.lax.stop_gradient(found)

    def _log_probs(
        self, params: Params, batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        p = self.policy
        computed = cast(params, jnp.dtype(p.dtype))
        with matmul_precision(computed):
            return speech_log_probs(
                bind(self._graphdef, computed),
                batch,
                p.sampling,
                p.books,
                remat=p.remat,
                attention=p.attention,
                predictor_attention=p.predictor_attention,
            )
