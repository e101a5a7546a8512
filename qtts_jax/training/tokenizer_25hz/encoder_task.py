"""Training of the 25 Hz encoder with its codebook: speech recognition, then mel beside it.

Source: the report of Qwen3-TTS (arXiv:2601.15621, section on the 25 Hz tokenizer). An audio encoder
with a vector quantizer in the middle is trained to recognise speech; a second stage adds a
convolutional mel decoder, so that the codes keep what sound needs besides the words.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.data.whisper import window_mel
from qtts_jax.errors import ConfigError
from qtts_jax.functional import Params, abstract, bind, cast
from qtts_jax.models.tokenizer_25hz import Encoder25Hz
from qtts_jax.training.counted_task import CountedTask
from qtts_jax.training.task import Groups, Metrics
from qtts_jax.training.tokenizer.codebook_ema import (
    Codebooks,
    QuantizerOutput,
    empty,
    learn,
    perplexity,
    quantize,
    straight_through,
    used,
)
from qtts_jax.training.tokenizer_25hz.config import (
    EncoderTraining,
    HeadsConfig,
    check_trainable_25hz,
)
from qtts_jax.training.tokenizer_25hz.encoder_params import join_encoder, split_encoder
from qtts_jax.training.tokenizer_25hz.heads import EncoderHeads
from qtts_jax.training.tokenizer_25hz.losses import (
    absolute_errors,
    mean_over_real,
    squared_errors,
    token_losses,
)

ENCODER, HEADS = "encoder", "heads"
BATCH = ("audio", "frames", "frames_per_row", "text", "text_length", "text_per_row")


class Encoded(NamedTuple):
    """Result of the encoder up to its codebook.

    Attributes:
        mel: [B, F, M] float32, what the encoder reads.
        vectors: [B, T, D], dequantized, with the gradient of the encoder.
        quantized: codes [B, T, 1] and the distance to their entries.
        book: the codebook after the pass.
        revived: int32 scalar, number of dead entries replaced.
    """

    mel: jax.Array
    vectors: jax.Array
    quantized: QuantizerOutput
    book: Codebooks
    revived: jax.Array


class EncoderTask(CountedTask):
    """Gradients of the encoder and of its heads (a `Task` of the trainer).

    The batch has `audio` [B, N] at 16 kHz, N whole codes, with real mel `frames` [B] (whole codes
    too), and `text` [B, L] ids, `text_length` of them real, of which the last ends the text.
    `frames_per_row` and `text_per_row` [B] are the means over the rows of the whole batch.

    Groups of parameters are `encoder`, all but its codebook, and `heads`, which are no part of the
    tokenizer. Extras are `book` (codebook statistics) and `calls` (microbatches so far).

    Metrics are the losses `asr` (nats per id), `commitment` and, in the second stage, `mel`; the
    share of ids that are predicted (`accuracy`); perplexity and used share of the codebook.

    Args:
        config: the tokenizer; its decoder is not trained here.
        heads: sizes of the heads.
        training: weights of the losses, codebook.
        dtype: of the computation; losses, codebook and mel are always float32.
        precision: of float32 products (`jax.default_matmul_precision`).
        accumulate: microbatches of a step.
        start: tree of an `Encoder25Hz`, whose codebook the first batch initializes if the tree
            says that it is not (`whisper_start`); None for random parameters and such a codebook.

    Raises:
        ConfigError: the configuration cannot be trained.
    """

    def __init__(
        self,
        config: Tokenizer25HzConfig,
        heads: HeadsConfig,
        training: EncoderTraining = EncoderTraining(),  # noqa: B008 (frozen)
        *,
        dtype: Any = jnp.bfloat16,
        precision: str | None = None,
        accumulate: int = 1,
        start: Params | None = None,
    ) -> None:
        check_trainable_25hz(config)
        super().__init__(accumulate)
        self.config, self.training, self.start = config, training, start
        self.dtype, self.precision = jnp.dtype(dtype), precision
        self._sizes = (config.encoder, heads)
        self._filled = start is not None and bool(np.all(start["quantizer"]["initialized"] > 0))

    def init(self, key: jax.Array, start: Params | None = None) -> tuple[Groups, dict[str, Any]]:
        """Initial float32 parameters and codebook; see `Task.init`."""
        encoder_key, heads_key = jax.random.split(key)
        start = self.start if start is None else start
        if start is None:
            new = Encoder25Hz(self.config.encoder, rngs=nnx.Rngs(encoder_key))
            trained, book = split_encoder(nnx.to_pure_dict(nnx.state(new)))
            book = empty(*book["embed_sum"].shape)
        else:
            trained, book = split_encoder(start)
            trained = cast(trained, jnp.dtype(jnp.float32))
        heads = nnx.to_pure_dict(nnx.state(EncoderHeads(self._sizes, rngs=nnx.Rngs(heads_key))))
        return {ENCODER: trained, HEADS: heads}, {"book": book, "calls": jnp.zeros((), jnp.int32)}

    def gradients(
        self, params: Groups, extras: dict[str, Any], batch: dict[str, jax.Array], key: jax.Array
    ) -> tuple[Groups, dict[str, Any], Metrics]:
        """Gradients per group, the extras after this microbatch, and float32 metrics.

        Raises:
            ConfigError: the batch lacks an array, or its audio is no whole number of codes.
        """
        self._check(batch)

        def loss(params: Groups) -> tuple[jax.Array, tuple[Encoded, Metrics]]:
            out = self._encode(params[ENCODER], extras, batch, key)
            metrics = self._losses(params, extras, batch, out)
            t = self.training
            weights = {"asr": t.asr, "mel": t.mel, "commitment": t.commitment}
            total = sum(
                (weight * metrics[name] for name, weight in weights.items() if name in metrics),
                start=jnp.zeros(()),
            )
            return total, (out, metrics)

        with jax.default_matmul_precision(self.precision):
            (total, (out, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        usage, dead = out.book["usage"][0], self.training.codebook.dead
        metrics |= {
            "loss": total,
            "perplexity": perplexity(usage),
            "used": used(usage, dead),
            "revived": out.revived.astype(jnp.float32),
        }
        return grads, extras | {"book": out.book, "calls": extras["calls"] + 1}, metrics

    def codes(
        self, params: Groups, extras: dict[str, Any], batch: dict[str, jax.Array]
    ) -> jax.Array:
        """Codes [B, T] int32 of a batch without learning; undefined behind the end of a row."""
        with jax.default_matmul_precision(self.precision):
            return self._encode(params[ENCODER], extras, batch, None).quantized.codes[..., 0]

    def encoder_params(self, params: Groups, extras: dict[str, Any]) -> Params:
        """The float32 tree of `Encoder25Hz`, the `encoder` of a tokenizer checkpoint."""
        return join_encoder(params[ENCODER], extras["book"])

    def _bind(self, trained: Params, extras: dict[str, Any]) -> Encoder25Hz:
        tree = join_encoder(cast(trained, self.dtype), extras["book"])
        model: Encoder25Hz = bind(abstract(Encoder25Hz, self.config.encoder)[0], tree)
        return model

    def _encode(
        self,
        trained: Params,
        extras: dict[str, Any],
        batch: dict[str, jax.Array],
        key: jax.Array | None,
    ) -> Encoded:
        """Encode and quantize; with a key the codebook learns."""
        c, book = self.config.encoder, extras["book"]
        model = self._bind(trained, extras)
        mel = window_mel(batch["audio"], c.n_mels)  # [B, F, M]
        x = model.embed(mel.astype(self.dtype), batch["frames"])  # [B, T, D]
        real = _before(batch["frames"] // c.frames_per_code, x.shape[1])
        # Behind the end of a row anything may stand; it must not reach the codebook as NaN.
        x = jnp.where(real[..., None], x, 0)
        project = model.quantizer.input_projection
        inner = x if project is None else project(x)  # [B, T, d]
        revived = jnp.zeros((), jnp.int32)
        if key is None:
            quantized = quantize(book, inner)
        else:
            quantized, book, revived = learn(
                book,
                inner,
                key,
                self.training.codebook,
                accumulate=self.accumulate,
                last=(extras["calls"] + 1) % self.accumulate == 0,
                initialized=self._filled,
                real=real,
            )
        rows = x.shape[0]
        vectors = straight_through(
            inner, quantized, jnp.ones((rows,), jnp.int32), jnp.zeros((rows,), bool)
        )
        restore = model.quantizer.output_projection
        return Encoded(
            mel, vectors if restore is None else restore(vectors), quantized, book, revived
        )

    def _losses(
        self, params: Groups, extras: dict[str, Any], batch: dict[str, jax.Array], out: Encoded
    ) -> Metrics:
        """The losses of this stage by name, and the accuracy of the text decoder."""
        c, frames = self.config.encoder, batch["frames"]
        heads = bind(abstract(EncoderHeads, self._sizes)[0], cast(params[HEADS], self.dtype))
        per_row = batch["frames_per_row"].astype(jnp.float32)
        speech, steps = self._speech(self._bind(params[ENCODER], extras), out, frames)
        text = batch["text"]
        # Ids in front of the targets; the end of a text is also what stands in front of it.
        end = jnp.take_along_axis(text, batch["text_length"][:, None] - 1, axis=1)  # [B, 1]
        before = jnp.concatenate([end, text[:, :-1]], axis=1)
        logits = heads.text(before, speech, steps)  # [B, L, V]
        real = _before(batch["text_length"], text.shape[1])
        ids_per_row = batch["text_per_row"].astype(jnp.float32)
        right = (jnp.argmax(logits, axis=-1) == text).astype(jnp.float32)
        away = squared_errors(out.quantized.residuals, out.quantized.entries)[..., 0]  # [B, T]
        codes = _before(frames // c.frames_per_code, away.shape[1])
        found = {
            "asr": mean_over_real(token_losses(logits, text), real, ids_per_row),
            "accuracy": mean_over_real(right, real, ids_per_row),
            "commitment": mean_over_real(away, codes, per_row / c.frames_per_code),
        }
        if self.training.mel:
            error = absolute_errors(heads.mel(out.vectors), out.mel)  # [B, F]
            found["mel"] = mean_over_real(error, _before(frames, error.shape[1]), per_row)
        return found

    def _speech(
        self, model: Encoder25Hz, out: Encoded, frames: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Continuous output with the two rows of `ends` around it: [B, S, O], and [B] real ones.

        The start stands in the first place, the end behind the last real vector.
        """
        batch, codes = out.vectors.shape[:2]
        per_window = self.config.encoder.codes_per_window
        windows = -(-codes // per_window)
        _, lengths = model.windows(out.mel, frames)
        x = out.vectors
        if windows > 1:
            x = jnp.pad(x, ((0, 0), (0, windows * per_window - codes), (0, 0)))
            x = rearrange(x, "b (w t) d -> (b w) t d", w=windows)
        x = rearrange(model.continuous(x, lengths), "(b w) t o -> b (w t) o", b=batch)
        # Two hidden steps a vector, two frames a hidden step.
        real = frames // 4
        first, last = (jnp.broadcast_to(e, (batch, 1, e.shape[0])) for e in model.ends[...])
        x = jnp.concatenate([first, x, jnp.zeros_like(last)], axis=1)  # [B, S, O]
        at_end = (jnp.arange(x.shape[1]) == real[:, None] + 1)[..., None]
        return jnp.where(at_end, last, x), real + 2

    def _check(self, batch: dict[str, jax.Array]) -> None:
        missing = [name for name in BATCH if name not in batch]
        if missing:
            raise ConfigError(
                f"encoder training needs {', '.join(missing)} in every batch, which has "
                f"{sorted(batch)}; take `data.TranscribedBatches`."
            )
        size = self.config.encoder.samples_per_code
        if batch["audio"].shape[1] % size:
            raise ConfigError(
                f"a batch of audio must be [rows, samples] with whole codes of {size} samples, not "
                f"{list(batch['audio'].shape)}; change the crop."
            )


def _before(lengths: jax.Array, time: int) -> jax.Array:
    """[B, T] bool, True before the end of each row."""
    return jnp.arange(time) < lengths[:, None]
