"""Training of the flow-matching decoder of the 25 Hz tokenizer on frozen codes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, abstract, bind, cast
from qtts_jax.models.tokenizer_25hz.flow import Flow
from qtts_jax.training.task import Groups, Metrics, Task
from qtts_jax.training.tokenizer_25hz.config import FlowTraining, check_trainable_25hz
from qtts_jax.training.tokenizer_25hz.flow_matching import row_slopes
from qtts_jax.training.tokenizer_25hz.losses import mean_over_real, squared_errors

FLOW = "flow"
BATCH = (
    "codes",
    "lengths",
    "codes_per_row",
    "mel",
    "xvector",
    "reference",
    "reference_frames",
)


class FlowTask(Task):
    """Gradients of the conditional flow-matching loss (a `Task` of the trainer).

    The loss is the mean squared error of the network's slope at a uniform random time of every row
    (`flow_matching`); a part of the rows has no conditions. The attention mask, the conditions and
    what stands for their absence are those of the model itself.

    The batch has `codes` [B, T] of a trained encoder, `lengths` [B] of them real, `mel` [B, F, M]
    natural-log mel frames of the same speech (`reference_mel_config`), F = T * repeats, `xvector`
    [B, X], and `reference` [B, R, M], mel frames of other speech of the speaker,
    `reference_frames` [B] of them real. `codes_per_row` [B] is the mean length over the rows of the
    whole batch.

    The one group of parameters is `flow`; there are no extras. The metric besides `loss` is
    `conditioned`, the share of rows with conditions.

    Args:
        config: the tokenizer; only its flow is trained here.
        training: dropout of conditions.
        dtype: of the computation; path and loss are float32.
        precision: of float32 products (`jax.default_matmul_precision`).
        start: tree of a `Flow`; None for random parameters.

    Raises:
        ConfigError: the configuration cannot be trained.
    """

    def __init__(
        self,
        config: Tokenizer25HzConfig,
        training: FlowTraining = FlowTraining(),  # noqa: B008 (frozen)
        *,
        dtype: Any = jnp.bfloat16,
        precision: str | None = None,
        start: Params | None = None,
    ) -> None:
        check_trainable_25hz(config)
        self.config, self.training, self.start = config, training, start
        self.dtype, self.precision = jnp.dtype(dtype), precision
        self._graph = abstract(Flow, config.decoder.dit)[0]

    def init(self, key: jax.Array, start: Params | None = None) -> tuple[Groups, dict[str, Any]]:
        """Initial float32 parameters; see `Task.init`.

        Modulations and the output projection start at 0, so that every layer starts as the identity
        (DiT, arXiv:2212.09748, section 3.2).
        """
        start = self.start if start is None else start
        if start is not None:
            return {FLOW: cast(start, jnp.dtype(jnp.float32))}, {}
        params = nnx.to_pure_dict(nnx.state(Flow(self.config.decoder.dit, rngs=nnx.Rngs(key))))
        for name in ("modulation", "output_modulation", "output"):
            params["dit"][name] = jax.tree.map(jnp.zeros_like, params["dit"][name])
        return {FLOW: params}, {}

    def gradients(
        self, params: Groups, extras: dict[str, Any], batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[Groups, dict[str, Any], Metrics]:
        """Gradients, the empty extras and float32 metrics; see `Task.gradients`.

        Raises:
            ConfigError: the batch lacks an array, or one has a wrong shape.
        """
        self._check(batch)
        with jax.default_matmul_precision(self.precision):
            (loss, metrics), grads = jax.value_and_grad(self.loss, has_aux=True)(
                params, extras, batch, key
            )
        return grads, extras, metrics | {"loss": loss}

    def loss(
        self, params: Groups, extras: dict[str, Any], batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The flow-matching loss of a batch, and metrics (also for `hooks.held_out_loss`).

        Args:
            key: of noise, times and dropped conditions.
        """
        del extras
        noise_key, time_key, drop_key = jax.random.split(key, 3)
        mel, rows = batch["mel"].astype(jnp.float32), batch["mel"].shape[0]
        noise = jax.random.normal(noise_key, mel.shape)
        times = jax.random.uniform(time_key, (rows,))
        conditioned = jax.random.bernoulli(drop_key, 1 - self.training.drop_conditions, (rows,))
        flow = bind(self._graph, cast(params[FLOW], self.dtype))
        conditioning = flow.condition(
            batch["xvector"], batch["reference"], batch["reference_frames"]
        )
        t = times[:, None, None]
        slopes = row_slopes(
            flow,
            (1 - t) * noise + t * mel,
            times,
            batch["codes"],
            conditioning,
            conditioned,
            batch["lengths"],
        )  # [B, F, M]
        error = squared_errors(slopes, mel - noise)  # [B, F]
        repeats = self.config.decoder.dit.repeats
        real = jnp.arange(error.shape[1]) < (batch["lengths"] * repeats)[:, None]
        per_row = repeats * batch["codes_per_row"].astype(jnp.float32)
        loss = mean_over_real(error, real, per_row)
        return loss, {"loss": loss, "conditioned": jnp.mean(conditioned.astype(jnp.float32))}

    def _check(self, batch: dict[str, jax.Array]) -> None:
        missing = [name for name in BATCH if name not in batch]
        if missing:
            raise ConfigError(
                f"flow training needs {', '.join(missing)} in every batch, which has "
                f"{sorted(batch)}; take `data.FlowBatches`."
            )
        c = self.config.decoder.dit
        rows, codes = batch["codes"].shape
        wanted = {"mel": (rows, codes * c.repeats, c.n_mels), "xvector": (rows, c.xvector_width)}
        for name, shape in wanted.items():
            if batch[name].shape != shape:
                raise ConfigError(
                    f"{name} must be {list(shape)} for {codes} codes a row, not "
                    f"{list(batch[name].shape)}; change the data or dit_config."
                )
