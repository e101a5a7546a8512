"""Training of the talker with its code predictor and speaker encoder.

Loss: cross entropy of codebook 0 (end of speech included) + 0.3 x mean cross entropy of the
others, and optionally the alignment loss: which text token each frame speaks. The output at
position p - 1 predicts codebook 0 of the frame at p, and is the first input of the code predictor
for that same frame; its head i predicts codebook i + 1 with no further shift.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tts import TTSConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, abstract, bind, cast, logical_axes, matmul_precision
from qtts_jax.models.code_predictor import CodePredictor
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.training.talker.chunked_loss import sum_of_chunks
from qtts_jax.training.talker.full_sequence import AttentionKernel, Remat
from qtts_jax.training.talker.lora import LoraConfig, adapter_axes, init_adapters, merge
from qtts_jax.training.talker.mixed_einsum import mixed_einsum
from qtts_jax.training.talker.predictor_targets import (
    PredictorTargets,
    delayed_batch,
    predictor_targets,
)
from qtts_jax.training.talker.teacher_forcing import (
    first_targets,
    forced_frames,
    forced_hidden,
    noisy_frames,
    predictor_logits,
)
from qtts_jax.training.task import Extras, Groups, Metrics, Task

PARTS = ("talker", "code_predictor", "speaker_encoder")


@dataclass(frozen=True)
class TalkerTaskConfig:
    """How a talker is trained.

    Attributes:
        model: sizes and ids.
        dtype: of the computation; master weights are float32.
        predictor_weight: of the code predictor's loss.
        predictor_frames: frames of each row that train the code predictor, drawn at random with
            replacement; None for all. Its Q positions a frame are most of the cost and memory of
            a step, and the frames of a row resemble each other.
        predictor_chunk: most frames of the code predictor in memory at once, with the results of
            all its layers. More frames run one chunk after the other, each with its gradients, so
            nothing is computed twice, and `remat` is for a single chunk only. A chunk adds its
            gradients to those of the others, which small chunks do too often: 4,096 frames of the
            released sizes take about 15 GB.
        code_noise: maximum fraction of input frames replaced by random codes; the fraction is drawn
            per row. With fewer true codes to continue from, the talker relies more on the text.
        alignment_weight: weight of the alignment loss, which predicts the text token of each frame.
            Targets come from the alignment of the manifest, else from a constant speaking rate.
            Even the latter is roughly right, and attention finds the place in the text much earlier
            than by the codes alone (guided attention, arXiv:1710.08969, constrains the attention
            weights instead). The rows of the text embedding are the classes, so this is meant for
            small vocabularies.
        remat, attention: of the talker, see `run_stack`.
        predictor_attention: the same for the code predictor.
        train: parts whose own parameters are trained; the others are frozen.
        lora: adapters on frozen parts, or None.
    """

    model: TTSConfig
    dtype: str = "bfloat16"
    predictor_weight: float = 0.3
    predictor_frames: int | None = None
    predictor_chunk: int = 1024
    code_noise: float = 0.0
    alignment_weight: float = 0.0
    remat: Remat = "none"
    attention: AttentionKernel = "auto"
    predictor_attention: AttentionKernel = "auto"
    train: tuple[str, ...] = PARTS
    lora: LoraConfig | None = None

    def __post_init__(self) -> None:
        unknown = sorted(set(self.train) - set(PARTS))
        if unknown:
            raise ConfigError(f"train names unknown parts {unknown}; parts are {list(PARTS)}.")
        for name in ("predictor_frames", "predictor_chunk"):
            if (getattr(self, name) or 1) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 <= self.code_noise <= 1:
            raise ConfigError(f"code_noise is a part of 1, and {self.code_noise} is not.")
        if self.alignment_weight < 0:
            raise ConfigError(f"alignment_weight must be 0 or more, not {self.alignment_weight}.")


class TalkerTask(Task):
    """A `Task` over batches of `talker_examples.collate`.

    The groups are the trained parts by name, and `lora`; frozen parts are extras.

    Args:
        initial: parameters to begin with (`TTSModel`, any floating dtype); parts that it lacks are
            random.
    """

    def __init__(self, config: TalkerTaskConfig, initial: Params | None = None) -> None:
        self.config = config
        self.start = initial
        self._graphdef, self._shapes = abstract(TTSModel, config.model)
        self._trained = [part for part in config.train if self._shapes.get(part)]
        talker = config.model.talker
        if talker.code_predictor is not None:
            module = functools.partial(CodePredictor, talker_width=talker.transformer.width)
            self._predictor = abstract(module, talker.code_predictor)[0]

    def init(self, key: jax.Array, start: Params | None = None) -> tuple[Groups, Extras]:
        """Float32 parameters of the trained parts, and the frozen ones as extras.

        `start` as in `Task.init`.
        """
        model, lora = self.config.model, self.config.lora
        params = cast((self.start if start is None else start) or {}, jnp.float32)
        missing = [part for part in self._shapes if part not in params]

        def random(key: jax.Array) -> Params:
            drawn = nnx.to_pure_dict(nnx.state(_build(model, key)))
            return {part: drawn[part] for part in missing}

        if missing:
            params |= jax.jit(random)(key)
        groups = {part: params[part] for part in self._trained}
        if lora is not None:
            groups["lora"] = init_adapters(TTSModel, model, lora, jax.random.fold_in(key, 1))
        frozen = {part: params[part] for part in params if part not in groups}
        return groups, {"frozen": frozen}

    def axes(self) -> Groups:
        """Logical axes of the groups."""
        axes = logical_axes(TTSModel, self.config.model)
        out = {part: axes[part] for part in self._trained}
        if self.config.lora is not None:
            out["lora"] = adapter_axes(TTSModel, self.config.model, self.config.lora)
        return out

    def model_params(self, params: Groups, extras: Extras) -> Params:
        """All parameters of the model: trained and frozen parts, adapters merged."""
        merged = {part: params[part] for part in params if part != "lora"} | extras["frozen"]
        if self.config.lora is not None:
            merged = merge(merged, params["lora"], self.config.lora)
        return merged

    def gradients(
        self, params: Groups, extras: Extras, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[Groups, Extras, Metrics]:
        """See `Task.gradients`; the extras stay as they are."""
        grads, metrics = jax.grad(self.loss, has_aux=True)(params, extras, batch, key)
        return grads, extras, metrics

    def loss(
        self, params: Groups, extras: Extras, batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The loss of a batch, with its terms and the share of codes that are most probable."""
        c = self.config
        if c.code_noise:
            batch = noisy_frames(c.model, batch, jax.random.fold_in(key, 1), c.code_noise)
        if c.model.talker.lag:
            batch = delayed_batch(c.model, batch)
        merged = self.model_params(params, extras)  # float32
        computed = cast(merged, jnp.dtype(c.dtype))
        with matmul_precision(computed):
            model: TTSModel = bind(self._graphdef, computed)
            hidden = forced_hidden(model, batch, remat=c.remat, attention=c.attention)  # [B, T, D]
            with jax.named_scope("codebook_0"):
                first, right = _first_loss(model, hidden, batch)
            metrics = {"ce_first": first, "accuracy_first": right}
            loss = first
            if c.alignment_weight:
                with jax.named_scope("reading"):
                    frames = forced_frames(hidden, batch)  # [B, F, D]
                    reading, right = _alignment_loss(model, frames, batch)
                metrics |= {"reading": reading, "accuracy_reading": right}
                loss = loss + c.alignment_weight * reading
            if model.code_predictor is not None:
                with jax.named_scope("code_predictor"):
                    targets = predictor_targets(c.model, batch)
                    outputs = forced_frames(hidden, batch, targets.first.shape[1])  # [B, S, D]
                    codes = model.talker.embed_codec(targets.first)  # [B, S, D]
                    total = jnp.sum(batch["mean_frames"])
                    rest, right = self._rest_loss(
                        merged["code_predictor"], outputs, codes, targets, total, key
                    )
                metrics |= {"ce_rest": rest, "accuracy_rest": right}
                loss = loss + c.predictor_weight * rest
        return loss, metrics | {"loss": loss}

    def _rest_loss(
        self,
        params: Params,
        hidden: jax.Array,
        first: jax.Array,
        wanted: PredictorTargets,
        frames: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Mean cross entropy and accuracy of codebooks 1..Q-1.

        Args:
            params: float32, of the code predictor.
            hidden, first: [B, S, D], the talker's outputs at the steps of `wanted`, and the
                embedded codebook 0 there.
            frames: of the batch, by which the sum of the losses of all codes is divided.
        """
        c, codes = self.config, wanted.codes
        rows, longest, codebooks = codes.shape
        weight = wanted.real.astype(jnp.float32)  # [B, S, Q-1]
        if c.predictor_frames is not None:
            shape, steps = (rows, c.predictor_frames), wanted.steps[:, None]
            chosen = jax.random.randint(key, shape, 0, steps)
            codes, weight = (
                jnp.take_along_axis(x, chosen[..., None], axis=1) for x in (codes, weight)
            )
            weight = weight * (steps / c.predictor_frames)[..., None]
            # As products with one-hot vectors, whose gradients are products too.
            pick = jax.nn.one_hot(chosen, longest, dtype=hidden.dtype)
            hidden, first = (jnp.einsum("bkf,bfd->bkd", pick, x) for x in (hidden, first))
        weight = weight / (frames * codebooks)
        rows = weight.shape[0] * weight.shape[1]

        # Chunks have their gradients before the next one begins: nothing of them is kept.
        remat: Remat = c.remat if rows <= c.predictor_chunk else "none"

        def chunk(
            params: Params, given: tuple[jax.Array, ...], targets: tuple[jax.Array, ...]
        ) -> tuple[jax.Array, jax.Array]:
            (hidden, first), (codes, weight) = given, targets
            # Cast here, so that the gradients of the chunks add up in float32.
            predictor = bind(self._predictor, cast(params, jnp.dtype(c.dtype)))
            logits = predictor_logits(predictor, hidden, first, codes, remat, c.predictor_attention)
            losses, right = _cross_entropy(logits, codes)
            return jnp.sum(losses * weight), jnp.sum(right * weight)

        hidden, first, *targets = (
            x.reshape(-1, x.shape[-1]) for x in (hidden, first, codes, weight)
        )
        if rows <= c.predictor_chunk:
            return chunk(params, (hidden, first), tuple(targets))
        return sum_of_chunks(chunk, c.predictor_chunk, params, (hidden, first), tuple(targets))


def _build(config: TTSConfig, key: jax.Array) -> TTSModel:
    return TTSModel(config, rngs=nnx.Rngs(key))


def _first_loss(
    model: TTSModel, hidden: jax.Array, batch: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Mean cross entropy and accuracy of codebook 0 over the targets of the whole batch."""
    targets = first_targets(batch, hidden.shape[1], model.config.talker.eos_id)
    logits = model.talker.codec_head(hidden).astype(jnp.float32)
    losses, right = _cross_entropy(logits, jnp.maximum(targets, 0))
    weight = (targets >= 0) / jnp.sum(batch["mean_targets"])
    return jnp.sum(losses * weight), jnp.sum(right * weight)


def _alignment_loss(
    model: TTSModel, frames: jax.Array, batch: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Cross entropy and accuracy of the text token that each frame [B, F, D] speaks.

    Sums over the frames whose text is known, divided by all frames.
    """
    targets = batch["spoken"]
    classes = model.talker.embed_text(jnp.arange(model.config.talker.text_vocab_size))
    logits = mixed_einsum("bfd,vd->bfv", frames, classes)
    losses, right = _cross_entropy(logits, jnp.maximum(targets, 0))
    weight = (targets >= 0) / jnp.sum(batch["mean_frames"])
    return jnp.sum(losses * weight), jnp.sum(right * weight)


def _cross_entropy(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Negative log-probability of the targets, and where they are most probable (float32)."""
    # A comparison and a sum fuse with the passes over the logits, forward and backward; gathering
    # the target would need another pass in the gradient.
    is_target = jnp.arange(logits.shape[-1]) == targets[..., None]
    chosen = jnp.sum(jnp.where(is_target, logits, 0), axis=-1)
    right = jax.lax.stop_gradient(chosen >= jnp.max(logits, axis=-1))
    return jax.nn.logsumexp(logits, axis=-1) - chosen, right.astype(jnp.float32)
