"""Training of the vocoder of the 25 Hz tokenizer: mel frames to samples against discriminators.

Source: BigVGAN (arXiv:2206.04658, section 3), with the losses and discriminators that the decoder
of the 12 Hz tokenizer is trained with.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, abstract, bind, cast
from qtts_jax.models.tokenizer_25hz.vocoder import Vocoder
from qtts_jax.training.counted_task import CountedTask
from qtts_jax.training.task import Groups, Metrics
from qtts_jax.training.tokenizer.config import TokenizerTraining
from qtts_jax.training.tokenizer.discriminators import Discriminators
from qtts_jax.training.tokenizer.sample_losses import (
    DISCRIMINATOR,
    first_balance,
    sample_losses,
)
from qtts_jax.training.tokenizer_25hz.config import check_trainable_25hz

VOCODER = "vocoder"


class VocoderTask(CountedTask):
    """Gradients of the vocoder and of its discriminators (a `Task` of the trainer).

    The batch has `mel` [B, F, M], natural-log mel frames, and `audio` [B, N] in [-1, 1], their
    samples at the output rate.

    Groups of parameters are `vocoder` and, unless there is none, `discriminator`. Extras are
    `calls` (microbatches so far) and `norms` (of gradients, when they are balanced). Metrics are
    those of `TokenizerTask` in its stage decoder.

    Args:
        config: the tokenizer; only its vocoder is trained here.
        training: of the stage "decoder"; what it says of codes and crops has no effect.
        dtype: of the discriminators. The vocoder and the losses are float32, since samples of a
            16-bit convolution would carry its rounding noise.
        precision: of float32 products (`jax.default_matmul_precision`).
        accumulate: microbatches of a step.
        start: tree of a `Vocoder`; None for random parameters.

    Raises:
        ConfigError: the configuration cannot be trained, or `training` is of another stage.
    """

    def __init__(
        self,
        config: Tokenizer25HzConfig,
        training: TokenizerTraining,
        *,
        dtype: Any = jnp.bfloat16,
        precision: str | None = None,
        accumulate: int = 1,
        start: Params | None = None,
    ) -> None:
        check_trainable_25hz(config)
        if training.stage != "decoder":
            raise ConfigError(
                f"a vocoder is trained with TokenizerTraining(stage='decoder'), not "
                f"{training.stage!r}; change the stage."
            )
        super().__init__(accumulate)
        self.config, self.training, self.start = config, training, start
        self.dtype, self.precision = jnp.dtype(dtype), precision
        self._graph = abstract(Vocoder, config.decoder.vocoder)[0]

    def init(self, key: jax.Array, start: Params | None = None) -> tuple[Groups, dict[str, Any]]:
        """Initial float32 parameters; see `Task.init`."""
        vocoder_key, discriminator_key = jax.random.split(key)
        start = self.start if start is None else start
        if start is None:
            new = Vocoder(self.config.decoder.vocoder, rngs=nnx.Rngs(vocoder_key))
            params = unit_gain(nnx.to_pure_dict(nnx.state(new)))
        else:
            params = cast(start, jnp.dtype(jnp.float32))
        groups = {VOCODER: params}
        if self.training.discriminator is not None:
            discriminators = Discriminators(
                self.training.discriminator, rngs=nnx.Rngs(discriminator_key)
            )
            groups[DISCRIMINATOR] = nnx.to_pure_dict(nnx.state(discriminators))
        extras = {"calls": jnp.zeros((), jnp.int32), "norms": first_balance(self.training)}
        return groups, extras

    def gradients(
        self, params: Groups, extras: dict[str, Any], batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[Groups, dict[str, Any], Metrics]:
        """Gradients per group, the extras after this microbatch, and float32 metrics.

        Raises:
            ConfigError: the batch lacks an array, or frames and samples do not agree.
        """
        del key  # nothing is random
        self._check(batch)
        recorded = batch["audio"].astype(jnp.float32)
        with jax.default_matmul_precision(self.precision):
            samples, vjp = jax.vjp(lambda p: self.synthesize(p, batch["mel"]), params[VOCODER])
            found = sample_losses(
                self.training,
                self.config.output_sample_rate,
                params.get(DISCRIMINATOR),
                samples,
                recorded,
                extras["calls"] // self.accumulate,
                extras["norms"],
                self.dtype,
            )
            (vocoder_grads,) = vjp(found.d_samples)
        weights = dataclasses.asdict(self.training.weights)
        loss = sum((weights[n] * v for n, v in found.values.items()), start=jnp.zeros(()))
        after = {"calls": extras["calls"] + 1, "norms": found.norms}
        metrics = found.metrics | found.values | {"loss": loss}
        return {VOCODER: vocoder_grads} | found.grads, after, metrics

    def synthesize(self, params: Params, mel: jax.Array) -> jax.Array:
        """Samples [B, N] float32 in [-1, 1] of mel frames [B, F, M] by vocoder parameters."""
        samples: jax.Array = bind(self._graph, params)(mel.astype(jnp.float32))
        return samples

    def _check(self, batch: dict[str, jax.Array]) -> None:
        missing = [name for name in ("mel", "audio") if name not in batch]
        if missing:
            raise ConfigError(
                f"vocoder training needs {' and '.join(missing)} in every batch, which has "
                f"{sorted(batch)}; take `data.VocoderBatches`."
            )
        c = self.config.decoder.vocoder
        rows, frames, _ = batch["mel"].shape
        wanted = {"mel": (rows, frames, c.n_mels), "audio": (rows, frames * c.samples_per_frame)}
        for name, shape in wanted.items():
            if batch[name].shape != shape:
                raise ConfigError(
                    f"{name} must be {list(shape)} for {frames} mel frames a row, not "
                    f"{list(batch[name].shape)}; change the data or bigvgan_config."
                )


def unit_gain(params: Params) -> Params:
    """Random parameters of a `Vocoder` whose main path keeps the variance of its input.

    The usual start of a convolution keeps a third of the variance; after the convolutions of the
    input, of the upsampling and of the output hardly anything would come out. Residual blocks keep
    their small start.
    """
    scaled = {
        path: leaf * (3**0.5 if _on_main_path(path) else 1.0)
        for path, leaf in flatten_dict(params).items()
    }
    return unflatten_dict(scaled)


def _on_main_path(path: tuple[Any, ...]) -> bool:
    return path[-1] == "kernel" and not {"convs1", "convs2"} & set(path)
