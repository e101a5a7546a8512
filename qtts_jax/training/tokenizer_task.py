"""Training of the 12 Hz tokenizer: encoder, split RVQ and decoder as one differentiable model.

The recipe is that of the codecs this family comes from (EnCodec arXiv:2210.13438, DAC
arXiv:2306.06546, Mimi arXiv:2410.00037): reconstruction of mel spectra, discriminators, and a
teacher for the first book. Every frame rate, codebook count and width is one of the configuration.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from qtts_jax.config_12hz import Tokenizer12HzConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, abstract, bind, cast
from qtts_jax.layers.linear import Linear
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.models.tokenizer_12hz.decoder import Decoder, DecoderState
from qtts_jax.models.tokenizer_12hz.encoder import Encoder, EncoderState
from qtts_jax.training import losses
from qtts_jax.training.balance import balanced, first_norms, weighted
from qtts_jax.training.codebook import (
    Codebooks,
    Quantized,
    active_books,
    learn,
    perplexity,
    quantize,
    straight_through,
    used,
)
from qtts_jax.training.discriminators import Discriminators
from qtts_jax.training.tokenizer_config import TokenizerTraining
from qtts_jax.training.tokenizer_params import PARTS, assemble, check_trainable, initial

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
# The generator's losses that the discriminators give.
JUDGED = ("adversarial", "feature")

Metrics = dict[str, jax.Array]
Grads = Params
# Logits and layer outputs of every discriminator.
Judgement = tuple[list[jax.Array], list[list[jax.Array]]]


class Reconstruction(NamedTuple):
    """What one pass through the tokenizer gives.

    Attributes:
        samples: [B, N] float32, not clipped.
        codes: [B, T, Q] int32.
        commitment: float32 scalar, the mean over all books.
        semantic: [B, T, D] what the semantic books give to the decoder.
        books: statistics after the pass.
        revived: int32 scalar, dead entries that were replaced.
    """

    samples: jax.Array
    codes: jax.Array
    commitment: jax.Array
    semantic: jax.Array
    books: dict[str, Codebooks]
    revived: jax.Array


class TeacherHead(nnx.Module):
    """Linear map of the semantic vectors to the teacher's width; only training has it."""

    def __init__(self, widths: tuple[int, int], *, rngs: nnx.Rngs) -> None:
        self.projection = Linear((widths[0],), (widths[1],), ("embed",), (None,), rngs=rngs)


class TokenizerTask:
    """Gradients of the tokenizer and of its discriminators (a `Task` of the trainer).

    The batch has `audio` [B, N] in [-1, 1] at the model's rate, N whole frames, and with a teacher
    `teacher` [B, T', D'], features of the same audio at any rate. Groups of parameters are
    `generator` and, unless there is none, `discriminator`. Extras are `books` (codebook
    statistics), `calls` (microbatches so far) and `norms` (of gradients, when they are balanced).

    Metrics are the losses, `pull/LOSS` (norm of the weighted gradient that reaches the samples),
    perplexity and used part of the books, and `revived` entries.

    Args:
        config: the tokenizer; both halves must agree on the codes.
        training: losses, codebooks, discriminators, teacher.
        dtype: of the computation. Losses, spectra, codebooks and the last convolution are float32
            always, parameters are float32 outside.
        precision: of float32 products (`jax.default_matmul_precision`); None for the device's own,
            "highest" for what `SpeechTokenizer` computes in float32.
        accumulate: microbatches per optimizer step of the trainer.

    Raises:
        ConfigError: the two halves do not belong together.
    """

    def __init__(
        self,
        config: Tokenizer12HzConfig,
        training: TokenizerTraining = TokenizerTraining(),  # noqa: B008 (frozen)
        *,
        dtype: Any = jnp.bfloat16,
        precision: str | None = None,
        accumulate: int = 1,
    ) -> None:
        check_trainable(config)
        if accumulate < 1:
            raise ConfigError(f"accumulate must be 1 or more, not {accumulate}.")
        self.config, self.training = config, training
        self.dtype, self.precision = jnp.dtype(dtype), precision
        self.accumulate = accumulate
        self._model = abstract(Tokenizer12Hz, config)[0]
        self._widths = (config.decoder.quantizer.model_width, training.teacher_width or 0)

    def init(self, key: jax.Array) -> tuple[dict[str, Params], dict[str, Any]]:
        """Random parameters, float32, and books that the first batch will fill."""
        tokenizer, teacher, discriminator = jax.random.split(key, 3)
        trained, books = initial(self.config, tokenizer)
        groups = {GENERATOR: {"tokenizer": trained}}
        if self.training.teacher_width is not None:
            head = TeacherHead(self._widths, rngs=nnx.Rngs(teacher))
            groups[GENERATOR]["teacher_head"] = nnx.to_pure_dict(nnx.state(head))
        if self.training.discriminator is not None:
            judges = Discriminators(self.training.discriminator, rngs=nnx.Rngs(discriminator))
            groups[DISCRIMINATOR] = nnx.to_pure_dict(nnx.state(judges))
        norms = {} if self.training.balance is None else first_norms(self._heard())
        return groups, {"books": books, "calls": jnp.zeros((), jnp.int32), "norms": norms}

    def gradients(
        self,
        params: dict[str, Params],
        extras: dict[str, Any],
        batch: dict[str, jax.Array],
        key: jax.Array,
    ) -> tuple[dict[str, Grads], dict[str, Any], Metrics]:
        """Gradients per group, the extras after this microbatch, and float32 metrics.

        Raises:
            ConfigError: the batch lacks an array, or one has a wrong shape.
        """
        audio = self._check(batch)
        quantizing, crop = jax.random.split(key)
        weights = self.training.weights

        def generate(generator: Params) -> tuple[tuple[jax.Array, ...], Reconstruction]:
            out = self._pass(generator, extras, audio, quantizing)
            teacher = jnp.zeros((), jnp.float32)
            if self.training.teacher_width is not None:
                head = bind(abstract(TeacherHead, self._widths)[0], generator["teacher_head"])
                wanted = resample_frames(batch["teacher"], out.semantic.shape[1])
                student = head.projection(out.semantic.astype(jnp.float32))
                teacher = losses.teacher_loss(student, wanted)
            return (out.samples, out.commitment, teacher), out

        def reconstruction(samples: jax.Array) -> jax.Array:
            c = self.training.mel_scales
            return losses.mel_loss(samples, audio, c, self.config.output_sample_rate)

        with jax.default_matmul_precision(self.precision):
            (samples, commitment, teacher), pull, out = jax.vjp(
                generate, params[GENERATOR], has_aux=True
            )
            mel, d_mel = jax.value_and_grad(reconstruction)(samples)
            values, pulls, grads = {"mel": mel}, {"mel": d_mel}, {}
            if self.training.discriminator is not None:
                step = extras["calls"] // self.accumulate
                judged, judged_pulls, grads[DISCRIMINATOR], hinge = self._judge(
                    params[DISCRIMINATOR], samples, audio, crop, step
                )
                # A loss without a gradient takes no part in the balance.
                heard = step >= self.training.generator_start
                judged_pulls = {n: jnp.where(heard, pull, 0) for n, pull in judged_pulls.items()}
                values, pulls = values | judged, pulls | judged_pulls
            values["commitment"] = commitment
            if self.training.teacher_width is not None:
                values["teacher"] = teacher
            by_name = dataclasses.asdict(weights)
            loss = sum((by_name[n] * v for n, v in values.items()), start=jnp.zeros(()))
            norms = extras["norms"]
            if self.training.balance is None:
                d_samples = weighted(pulls, by_name)
            else:
                d_samples, norms = balanced(pulls, by_name, norms, self.training.balance)
            cotangents = (
                d_samples,
                jnp.full((), weights.commitment, jnp.float32),
                jnp.full((), weights.teacher, jnp.float32),
            )
            (grads[GENERATOR],) = pull(cotangents)
        metrics = values | {"loss": loss, "revived": out.revived.astype(jnp.float32)}
        if self.training.discriminator is not None:
            metrics["discriminator"] = hinge
        metrics |= {f"pull/{n}": by_name[n] * jnp.linalg.norm(g) for n, g in pulls.items()}
        metrics |= self._codebook_metrics(out.books)
        after = {"books": out.books, "calls": extras["calls"] + 1, "norms": norms}
        return grads, after, metrics

    def reconstruct(
        self, params: dict[str, Params], extras: dict[str, Any], audio: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Codes [B, T, Q] and samples [B, N] in [-1, 1] without dropout or learning.

        Args:
            audio: [B, N], N whole frames.
        """
        with jax.default_matmul_precision(self.precision):
            out = self._pass(params[GENERATOR], extras, audio, None)
        return out.codes, jnp.clip(out.samples, -1, 1)

    def tokenizer_params(self, params: dict[str, Params], extras: dict[str, Any]) -> Params:
        """The float32 tree of a tokenizer checkpoint (`save_params`, `SpeechTokenizer`)."""
        return assemble(self.config, params[GENERATOR]["tokenizer"], extras["books"])

    def _pass(
        self,
        generator: Params,
        extras: dict[str, Any],
        audio: jax.Array,
        key: jax.Array | None,
    ) -> Reconstruction:
        """Encode, quantize and decode; learning and dropout if there is a key."""
        trained = cast(generator["tokenizer"], self.dtype)
        # These two give `Decoder.synthesize` its float32 samples.
        trained["decoder"] |= {
            name: generator["tokenizer"]["decoder"][name]
            for name in ("output_activation", "output_conv")
        }
        model: Any = bind(self._model, assemble(self.config, trained, extras["books"]))
        x = _embed(model.encoder, audio.astype(self.dtype))
        rows, c = x.shape[0], self.config.decoder.quantizer
        active = jnp.full((rows,), c.books)
        bypass = jnp.zeros((rows,), bool)
        if key is not None:
            key, drop, skip = jax.random.split(key, 3)
            active = active_books(drop, rows, c.books, self.training.codebook.dropout)
            bypass = jax.random.bernoulli(skip, self.training.codebook.bypass, (rows,))
        in_use = {"semantic": jnp.minimum(active, c.semantic), "acoustic": active - c.semantic}
        decoded, quantized = {}, {}
        books: dict[str, Codebooks] = {}
        revived = jnp.zeros((), jnp.int32)
        for i, part in enumerate(PARTS):
            with jax.named_scope(part):
                project = getattr(model.encoder.quantizer, part).input_projection
                inner = x if project is None else project(x)
                before = extras["books"][part]
                if key is None:
                    quantized[part], books[part] = quantize(before, inner), before
                else:
                    quantized[part], books[part], count = learn(
                        before,
                        inner,
                        jax.random.fold_in(key, i),
                        self.training.codebook,
                        accumulate=self.accumulate,
                        last=(extras["calls"] + 1) % self.accumulate == 0,
                    )
                    revived += count
                vectors = straight_through(inner, quantized[part], in_use[part], bypass)
                decoded[part] = getattr(model.decoder.quantizer, part).output_projection(vectors)
        samples = _synthesize(model.decoder, decoded["semantic"] + decoded["acoustic"])
        return Reconstruction(
            samples,
            _join(quantized, "codes"),
            losses.commitment_loss(_join(quantized, "residuals"), _join(quantized, "entries")),
            decoded["semantic"],
            books,
            revived,
        )

    def _heard(self) -> tuple[str, ...]:
        """The losses whose gradient goes through the samples."""
        return ("mel",) if self.training.discriminator is None else ("mel", *JUDGED)

    def _judge(
        self,
        params: Params,
        samples: jax.Array,
        audio: jax.Array,
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[Metrics, dict[str, jax.Array], Grads, jax.Array]:
        """What the discriminators say of the samples.

        One pass over real and one over decoded audio serve both sides; all gradients of the
        decoded one are pulls through the same pass.

        Returns:
            the generator's losses and their gradients for the samples [B, N] by name, the
            gradients of the discriminators, and their loss.
        """
        config = self.training.discriminator
        graph = abstract(Discriminators, config)[0]
        start, length = self._window(key, audio.shape[1])
        real, fake = (
            jax.lax.dynamic_slice_in_dim(wave, start, length, axis=1) for wave in (audio, samples)
        )

        def judge(params: Params, wave: jax.Array) -> Judgement:
            return bind(graph, cast(params, self.dtype))(wave)

        def active(params: Params) -> tuple[Metrics, dict[str, jax.Array], Grads, jax.Array]:
            on_real, pull_real = jax.vjp(lambda p: judge(p, real), params)
            on_fake, pull_fake = jax.vjp(judge, params, fake)

            def hinge(real: Judgement, fake: Judgement) -> jax.Array:
                return losses.discriminator_loss(real[0], fake[0])

            value, (d_real, d_fake) = jax.value_and_grad(hinge, (0, 1))(on_real, on_fake)
            grads = jax.tree.map(jnp.add, pull_real(d_real)[0], pull_fake(d_fake)[0])
            values, pulls = {}, {}
            for name, loss in (
                ("adversarial", lambda fake: losses.adversarial_loss(fake[0])),
                ("feature", lambda fake: losses.feature_loss(on_real[1], fake[1])),
            ):
                values[name], d_fake = jax.value_and_grad(loss)(on_fake)
                pulls[name] = pull_fake(d_fake)[1]
            return values, pulls, grads, value

        def idle(params: Params) -> tuple[Metrics, dict[str, jax.Array], Grads, jax.Array]:
            zero, nothing = jnp.zeros((), jnp.float32), jnp.zeros_like(fake)
            grads = jax.tree.map(jnp.zeros_like, params)
            return dict.fromkeys(JUDGED, zero), dict.fromkeys(JUDGED, nothing), grads, zero

        if self.training.discriminator_start == 0:
            values, pulls, grads, value = active(params)
        else:
            begun = step >= self.training.discriminator_start
            values, pulls, grads, value = jax.lax.cond(begun, active, idle, params)
        whole = {
            name: jax.lax.dynamic_update_slice_in_dim(jnp.zeros_like(samples), pull, start, axis=1)
            for name, pull in pulls.items()
        }
        return values, whole, grads, value

    def _window(self, key: jax.Array, samples: int) -> tuple[jax.Array, int]:
        """First sample and length of what the discriminators judge, the same in every row."""
        frame = self.config.samples_per_frame
        frames = samples // frame
        judged = min(self.training.discriminator_frames or frames, frames)
        return jax.random.randint(key, (), 0, frames - judged + 1) * frame, judged * frame

    def _codebook_metrics(self, books: dict[str, Codebooks]) -> Metrics:
        """Perplexity and used part of every book, and their least and mean."""
        usage = jnp.concatenate([books[part]["usage"] for part in PARTS])
        metrics: Metrics = {}
        for name, values in (
            ("perplexity", perplexity(usage)),
            ("used", used(usage, self.training.codebook.dead)),
        ):
            metrics |= {f"{name}/mean": jnp.mean(values), f"{name}/least": jnp.min(values)}
            metrics |= {f"{name}/book_{i:02d}": value for i, value in enumerate(values)}
        return metrics

    def _check(self, batch: dict[str, jax.Array]) -> jax.Array:
        """The audio of a batch that has what this training needs."""
        for name, given in (("audio", True), ("teacher", self.training.teacher_width is not None)):
            if given and name not in batch:
                raise ConfigError(
                    f"tokenizer training needs {name!r} in every batch, which has "
                    f"{sorted(batch)}; add it to the data."
                )
        audio, frame = batch["audio"], self.config.samples_per_frame
        if audio.ndim != 2 or not audio.shape[1] or audio.shape[1] % frame:
            raise ConfigError(
                f"a batch of audio must be [rows, samples] with whole frames of {frame} samples, "
                f"not {list(audio.shape)}; change the crop."
            )
        width = self.training.teacher_width
        if width is not None and batch["teacher"].shape[::2] != (audio.shape[0], width):
            raise ConfigError(
                f"the teacher's features must be [{audio.shape[0]}, frames, {width}], not "
                f"{list(batch['teacher'].shape)}; correct teacher_width or the data."
            )
        return audio.astype(jnp.float32)


def resample_frames(features: jax.Array, frames: int) -> jax.Array:
    """Means of features over the time of each of `frames` frames, at any ratio of the rates.

    A feature that lies in two frames counts in each by its share.

    Args:
        features: [B, T', D] over the same time.

    Returns:
        float32 [B, frames, D].
    """
    given = features.shape[1]
    edges = np.arange(frames + 1) * (given / frames)
    starts = np.arange(given)
    shared = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    shares = np.maximum(shared, 0) * (frames / given)
    return jnp.einsum(
        "ts,bsd->btd", shares.astype(np.float32), features.astype(jnp.float32), precision="highest"
    )


def _embed(encoder: Encoder, audio: jax.Array) -> jax.Array:
    """Vectors [B, T, D] before quantization of audio [B, N] from a fresh state."""
    rows, samples = audio.shape
    state = encoder.init_state(rows, audio.dtype, samples // encoder.config.samples_per_frame)
    return encoder.embed(audio, state._replace(transformer=_short(encoder, state, rows)))[0]


def _synthesize(decoder: Decoder, x: jax.Array) -> jax.Array:
    """Samples [B, N], not clipped, of quantizer vectors [B, T, D] from a fresh state."""
    rows = x.shape[0]
    state = decoder.init_state(rows, x.dtype)
    return decoder.synthesize(x, state._replace(transformer=_short(decoder, state, rows)))[0]


def _short(half: Encoder | Decoder, state: EncoderState | DecoderState, rows: int) -> Any:
    """The transformer's state without room for earlier keys, of which a window has none yet."""
    if half.transformer.config.window is None:
        return state.transformer
    dtype = state.transformer.layers[0].keys.dtype
    return half.transformer.init_state(rows, dtype, 0)


def _join(quantized: dict[str, Quantized], name: str) -> jax.Array:
    """A field of both quantizers, semantic books first along axis 2."""
    return jnp.concatenate([getattr(quantized[part], name) for part in PARTS], axis=2)
