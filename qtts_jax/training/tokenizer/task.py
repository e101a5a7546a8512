"""Training of the 12 Hz tokenizer: encoder, split RVQ and decoder as one differentiable model.

The recipe is that of the codecs this family comes from (EnCodec arXiv:2210.13438, DAC
arXiv:2306.06546, Mimi arXiv:2410.00037): reconstruction of mel spectra, discriminators, and a
teacher for the first codebook. Short runs train in two stages instead: first the codes, with a
head that predicts spectra from them, then the decoder. Frame rate, number of codebooks and widths
come from the configuration.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.dsp.loudness import loudness_spectra
from qtts_jax.dsp.stft import envelope_spectra, log10_mel
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, abstract, bind, cast
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.training.counted_task import CountedTask
from qtts_jax.training.tokenizer import losses
from qtts_jax.training.tokenizer.codebook_ema import (
    Codebooks,
    QuantizerOutput,
    active_books,
    learn,
    perplexity,
    quantize,
    straight_through,
    used,
)
from qtts_jax.training.tokenizer.config import SpectrumConfig, TokenizerTraining
from qtts_jax.training.tokenizer.discriminators import Discriminators
from qtts_jax.training.tokenizer.forward import embed, resample_frames, synthesize
from qtts_jax.training.tokenizer.heads import Heads
from qtts_jax.training.tokenizer.params import (
    PARTS,
    assemble,
    check_trainable,
    disassemble,
    initial,
    merge,
    split,
)
from qtts_jax.training.tokenizer.random_eq import random_eq
from qtts_jax.training.tokenizer.sample_losses import (
    DISCRIMINATOR,
    first_balance,
    sample_losses,
)

GENERATOR = "generator"

Metrics = dict[str, jax.Array]
Grads = Params


class Reconstruction(NamedTuple):
    """Result of one pass through the tokenizer.

    Attributes:
        samples: [B, N] float32, not clipped; None in a stage that does not decode.
        recorded: [B, N] float32, the recording of the same frames.
        codes: [B, T, Q] int32.
        commitment: float32 scalar, the commitment loss averaged over the codebooks.
        semantic: [B, T, D], the decoder input from the semantic codebooks alone.
        vectors: [B, T, D], the decoder input from all codebooks.
        books: codebook state after the pass.
        revived: int32 scalar, number of dead entries replaced.
    """

    samples: jax.Array | None
    recorded: jax.Array
    codes: jax.Array
    commitment: jax.Array
    semantic: jax.Array
    vectors: jax.Array
    books: dict[str, Codebooks]
    revived: jax.Array


class TokenizerTask(CountedTask):
    """Gradients of the tokenizer and of its discriminators (a `Task` of the trainer).

    The batch has `audio` [B, N] in [-1, 1] at the model's rate, N whole frames, and with a teacher
    `teacher` [B, T', D'], features of the same audio at any rate. Groups of parameters are
    `generator` and, unless there is none, `discriminator`. Extras are `books` (codebook
    statistics), `frozen` (parameters that the stage does not train), `calls` (microbatches so far)
    and `norms` (of gradients, when they are balanced).

    Metrics are the losses, `pull/LOSS` (norm of the gradient of a loss, times its weight, with
    respect to the samples; before `TokenizerTraining.balance` rescales them), perplexity and used
    share of the codebooks, and `revived` entries.

    Args:
        config: the tokenizer; both halves must agree on the codes.
        training: losses, codebooks, discriminators, teacher.
        dtype: of the computation. Losses, spectra, codebooks and the last convolution are always
            float32, and so are the stored parameters.
        precision: of float32 products (`jax.default_matmul_precision`); None for the device's own,
            "highest" for what `SpeechTokenizer` computes in float32.
        accumulate: microbatches of a step; the trainer refuses another number than its own.
        start: initial tree of a tokenizer checkpoint; None for random parameters and codebooks that
            the first batch initializes.

    Raises:
        ConfigError: the two halves do not belong together, or the stage decoder has no trained
            codes to start from.
    """

    def __init__(
        self,
        config: Tokenizer12HzConfig,
        training: TokenizerTraining = TokenizerTraining(),  # noqa: B008 (frozen)
        *,
        dtype: Any = jnp.bfloat16,
        precision: str | None = None,
        accumulate: int = 1,
        start: Params | None = None,
    ) -> None:
        check_trainable(config)
        if not training.learns_codes and start is None:
            raise ConfigError(
                "the stage decoder needs a tokenizer whose codes are trained; give one to start "
                "from."
            )
        super().__init__(accumulate)
        self.config, self.training = config, training
        self.dtype, self.precision = jnp.dtype(dtype), precision
        self._model = abstract(Tokenizer12Hz, config)[0]
        frame = config.samples_per_frame
        spectra = sum(e.mels * e.steps(frame) for e in training.spectra) or None
        width = config.decoder.quantizer.model_width
        self._heads = (width, training.teacher_width, spectra)
        self._discriminator = training.discriminator if training.decodes else None
        self.start = start

    def init(
        self, key: jax.Array, start: Params | None = None
    ) -> tuple[dict[str, Params], dict[str, Any]]:
        """Initial float32 parameters and codebooks; see `Task.init`."""
        tokenizer, heads, discriminator = jax.random.split(key, 3)
        start = self.start if start is None else start
        if start is None:
            whole, books = initial(self.config, tokenizer)
        else:
            whole, books = disassemble(self.config, start)
        trained, frozen = split(whole, self.training.stage)
        groups = {GENERATOR: {"tokenizer": trained}}
        if self.training.learns_codes:
            new = Heads(self._heads, rngs=nnx.Rngs(heads))
            groups[GENERATOR]["heads"] = nnx.to_pure_dict(nnx.state(new))
        if self._discriminator is not None:
            discriminators = Discriminators(self._discriminator, rngs=nnx.Rngs(discriminator))
            groups[DISCRIMINATOR] = nnx.to_pure_dict(nnx.state(discriminators))
        norms = first_balance(self.training) if self.training.decodes else {}
        calls = jnp.zeros((), jnp.int32)
        return groups, {"books": books, "frozen": frozen, "calls": calls, "norms": norms}

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
        audio, t = self._check(batch), self.training
        by_name = dataclasses.asdict(t.weights)
        by_name |= {f"envelope/{e.window}": e.weight * t.weights.envelope for e in t.spectra}
        if t.random_eq:
            key, color = jax.random.split(key)
            audio = random_eq(audio, color, t.random_eq)

        def generate(generator: Params) -> tuple[tuple[Any, Metrics], Reconstruction]:
            out = self._pass(generator, extras, audio, key)
            learned = self._code_losses(generator, out, batch, audio) if t.learns_codes else {}
            return (out.samples, learned), out

        grads: dict[str, Grads] = {}
        metrics: Metrics = {}
        with jax.default_matmul_precision(self.precision):
            (samples, values), vjp, out = jax.vjp(generate, params[GENERATOR], has_aux=True)
            d_values = {name: jnp.full((), by_name[name], jnp.float32) for name in values}
            d_samples, norms = None, extras["norms"]
            if t.decodes:
                found = sample_losses(
                    t,
                    self.config.output_sample_rate,
                    params.get(DISCRIMINATOR),
                    samples,
                    out.recorded,
                    extras["calls"] // self.accumulate,
                    norms,
                    self.dtype,
                )
                grads |= found.grads
                metrics |= found.metrics
                values = values | found.values
                d_samples, norms = found.d_samples, found.norms
            (grads[GENERATOR],) = vjp((d_samples, d_values))
        loss = sum((by_name[n] * v for n, v in values.items()), start=jnp.zeros(()))
        metrics |= values | {"loss": loss, "revived": out.revived.astype(jnp.float32)}
        if t.learns_codes:
            metrics |= self._codebook_metrics(out.books)
        after = {"books": out.books, "calls": extras["calls"] + 1, "norms": norms}
        return grads, extras | after, metrics

    def _code_losses(
        self, generator: Params, out: Reconstruction, batch: dict[str, jax.Array], audio: jax.Array
    ) -> Metrics:
        """Losses of encoder and codebooks that need no decoded samples."""
        t, found = self.training, {"commitment": out.commitment}
        heads = bind(abstract(Heads, self._heads)[0], generator["heads"])
        if t.teacher_width is not None:
            wanted = resample_frames(batch["teacher"], out.semantic.shape[1])
            student = heads.teacher(out.semantic.astype(jnp.float32))
            found["teacher"] = losses.teacher_loss(student, wanted)
        if t.spectra:
            predicted, start = heads.envelope(out.vectors.astype(jnp.float32)), 0
            for e in t.spectra:
                spectra = self._spectra(audio, e)
                part = predicted[..., start : start + spectra.shape[-1]]
                found[f"envelope/{e.window}"] = losses.spectrum_loss(part, spectra)
                start += spectra.shape[-1]
        return found

    def _spectra(self, audio: jax.Array, e: SpectrumConfig) -> jax.Array:
        rate, floor = self.config.output_sample_rate, self.training.noise_floor

        def spectra(wave: jax.Array) -> jax.Array:
            if e.loudness:
                return loudness_spectra(wave, e.window, e.mels, rate, e.top or rate / 2)
            return log10_mel(wave, e.window, e.mels, rate, floor, e.top)

        steps = e.steps(self.config.samples_per_frame)
        return envelope_spectra(audio, e.window, steps, spectra)

    def reconstruct(
        self, params: dict[str, Params], extras: dict[str, Any], audio: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Codes [B, T, Q] and samples [B, N] in [-1, 1] without dropout or learning.

        Args:
            audio: [B, N], N whole frames.
        """
        with jax.default_matmul_precision(self.precision):
            out = self._pass(params[GENERATOR], extras, audio, None)
            samples = out.samples
            if samples is None:
                samples = synthesize(self._bind(params[GENERATOR], extras).decoder, out.vectors)
        return out.codes, jnp.clip(samples, -1, 1)

    def tokenizer_params(self, params: dict[str, Params], extras: dict[str, Any]) -> Params:
        """The float32 tree of a tokenizer checkpoint (`save_params`, `SpeechTokenizer`)."""
        whole = merge(params[GENERATOR]["tokenizer"], extras["frozen"])
        return assemble(self.config, whole, extras["books"])

    def _bind(self, generator: Params, extras: dict[str, Any]) -> Any:
        """The tokenizer in the dtype of the computation."""
        whole = merge(generator["tokenizer"], extras["frozen"])
        trained = cast(whole, self.dtype)
        # These two stay float32, so that `Decoder.synthesize` returns float32 samples.
        trained["decoder"] |= {
            name: whole["decoder"][name] for name in ("output_activation", "output_conv")
        }
        return bind(self._model, assemble(self.config, trained, extras["books"]))

    def _pass(
        self,
        generator: Params,
        extras: dict[str, Any],
        audio: jax.Array,
        key: jax.Array | None,
    ) -> Reconstruction:
        """Encode, quantize and decode; with a key also codebook updates, dropout and a crop."""
        model, t = self._bind(generator, extras), self.training
        x = embed(model.encoder, audio.astype(self.dtype))
        rows, c = x.shape[0], self.config.decoder.quantizer
        active = jnp.full((rows,), c.books)
        bypass = jnp.zeros((rows,), bool)
        if key is not None:
            key, drop, skip, cut = jax.random.split(key, 4)
            active = active_books(drop, rows, c.books, t.codebook.dropout)
            bypass = jax.random.bernoulli(skip, t.codebook.bypass, (rows,))
        in_use = {"semantic": jnp.minimum(active, c.semantic), "acoustic": active - c.semantic}
        decoded, quantized = {}, {}
        books: dict[str, Codebooks] = {}
        revived = jnp.zeros((), jnp.int32)
        for i, part in enumerate(PARTS):
            with jax.named_scope(part):
                project = getattr(model.encoder.quantizer, part).input_projection
                inner = x if project is None else project(x)
                before = extras["books"][part]
                if key is None or not t.learns_codes:
                    quantized[part], books[part] = quantize(before, inner), before
                else:
                    quantized[part], books[part], count = learn(
                        before,
                        inner,
                        jax.random.fold_in(key, i),
                        t.codebook,
                        accumulate=self.accumulate,
                        last=(extras["calls"] + 1) % self.accumulate == 0,
                        initialized=self.start is not None,
                    )
                    revived += count
                vectors = straight_through(inner, quantized[part], in_use[part], bypass)
                decoded[part] = getattr(model.decoder.quantizer, part).output_projection(vectors)
        vectors = decoded["semantic"] + decoded["acoustic"]
        samples, recorded = None, audio
        if t.decodes:
            decoded_vectors = vectors
            if key is not None and t.decoded_frames is not None:
                decoded_vectors, recorded = self._cut(cut, vectors, audio, t.decoded_frames)
            samples = synthesize(model.decoder, decoded_vectors)
        return Reconstruction(
            samples,
            recorded,
            _join(quantized, "codes"),
            losses.commitment_loss(_join(quantized, "residuals"), _join(quantized, "entries")),
            decoded["semantic"],
            vectors,
            books,
            revived,
        )

    def _cut(
        self, key: jax.Array, vectors: jax.Array, audio: jax.Array, frames: int
    ) -> tuple[jax.Array, jax.Array]:
        """A random crop of `frames` frames of vectors [B, T, D] and audio [B, N]."""
        size = self.config.samples_per_frame
        frames = min(frames, vectors.shape[1])
        start = jax.random.randint(key, (), 0, vectors.shape[1] - frames + 1)
        return (
            jax.lax.dynamic_slice_in_dim(vectors, start, frames, axis=1),
            jax.lax.dynamic_slice_in_dim(audio, start * size, frames * size, axis=1),
        )

    def _codebook_metrics(self, books: dict[str, Codebooks]) -> Metrics:
        """Perplexity and used share of every codebook, with minimum and mean."""
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
        """Check that a batch has the arrays of this training; returns its audio."""
        t = self.training
        width = t.teacher_width if t.learns_codes else None
        for name, given in (("audio", True), ("teacher", width is not None)):
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
        if width is not None and batch["teacher"].shape[::2] != (audio.shape[0], width):
            raise ConfigError(
                f"the teacher's features must be [{audio.shape[0]}, frames, {width}], not "
                f"{list(batch['teacher'].shape)}; correct teacher_width or the data."
            )
        return audio.astype(jnp.float32)


def _join(quantized: dict[str, QuantizerOutput], name: str) -> jax.Array:
    """A field of both quantizers, semantic codebooks first along axis 2."""
    return jnp.concatenate([getattr(quantized[part], name) for part in PARTS], axis=2)
