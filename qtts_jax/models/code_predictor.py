"""The MTP head (code predictor): codebooks 1..Q-1 of a frame from the talker's hidden state."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from qtts_jax.configs.tts import CodePredictorConfig
from qtts_jax.functional import Params, matmul_precision
from qtts_jax.layers import dispatch
from qtts_jax.layers.embedding_lookup import lookup_codebooks
from qtts_jax.layers.kernels.matvec import norm_matvec
from qtts_jax.layers.linear import Linear
from qtts_jax.layers.norm import RMSNorm
from qtts_jax.layers.param import normal, param
from qtts_jax.layers.preprojected_table import Projected, Table, project, raw
from qtts_jax.layers.quantized_weights import Weight, dense, matrix, product
from qtts_jax.layers.streamed_weights import Streamed, plain
from qtts_jax.models.code_predictor_kernel import Draw, generate
from qtts_jax.modules.transformer import Transformer, TransformerState

# Embedding of the newest code, sum of the embeddings, state.
Carry = tuple[Table, jax.Array, TransformerState]


class CodePredictor(nnx.Module):
    """A small transformer with a fresh cache in every frame.

    Sequential pattern: run once per codebook. Its sequence is [talker hidden, code 0, code 1, ...];
    the output at code i - 1 gives codebook i through head i (upstream
    `Qwen3TTSTalkerCodePredictorModelForConditionalGeneration`).
    Parallel pattern: run once per frame. The output at code 0 gives all codebooks through the same
    heads, and nothing follows it.
    Delay pattern: the same pass, with codebooks of different frames (`generation/delay.py`).
    The Q-1 embedding tables and heads are stacked along a codebook axis.

    Args:
        c: sizes.
        talker_width: width of hidden states and of the embeddings here, which the talker sums.
    """

    def __init__(self, c: CodePredictorConfig, talker_width: int, *, rngs: nnx.Rngs) -> None:
        self.config = c
        width, init = c.transformer.width, normal(c.transformer.init_std)
        shape = (c.codebooks - 1, c.vocab_size)
        axes = ("codebook", "codec_vocab", "embed")
        self.embeddings = param(rngs, (*shape, talker_width), axes, init, columns=1)
        self.input_projection = (
            None
            if width == talker_width
            else Linear(
                (talker_width,), (width,), ("embed",), (None,), bias=True, init=init, rngs=rngs
            )
        )
        self.transformer = Transformer(c.transformer, rngs=rngs)
        self.heads = param(rngs, (*shape, width), axes, init, columns=1)

    def embed(self, codes: jax.Array) -> jax.Array:
        """Sum of the embeddings of codebooks 1..Q-1.

        Args:
            codes: [..., Q-1] int; -1 contributes nothing.

        Returns:
            [..., D talker].
        """
        rows = raw(lookup_codebooks(self.embeddings[...], jnp.maximum(codes, 0)))  # [..., Q-1, D]
        return jnp.sum(jnp.where((codes >= 0)[..., None], rows, 0), axis=-2)

    def generate(
        self,
        hidden: jax.Array,
        first: jax.Array,
        choose: Callable[[jax.Array, jax.Array | int], jax.Array],
    ) -> tuple[jax.Array, jax.Array]:
        """Codebooks 1..Q-1 of one frame, one after the other.

        Args:
            hidden: [B, D talker], the talker's hidden state that gave codebook 0.
            first: [B, D talker], the embedding of codebook 0.
            choose: (logits [B, V] float32, codebook index int) -> codes [B] int32.

        Returns:
            codes [B, Q-1] int32 and the sum of their embeddings [B, D talker].
        """
        codebooks = self.config.codebooks - 1
        embeddings = self.embeddings[...]

        def pick(y: jax.Array, codebook: jax.Array | int) -> tuple[jax.Array, Table]:
            """Code and embedding of codebook + 1 from the output y [B, D] before the final norm."""
            code = choose(self._logits(y, codebook), codebook + 1).astype(jnp.int32)
            return code, embeddings[codebook, code]

        def predict(
            row: Table, state: TransformerState, codebook: jax.Array | int
        ) -> tuple[jax.Array, Table, TransformerState]:
            y, state = self.transformer.step_blocks(self._inputs(row)[:, None], state)  # [B, 1, D]
            return *pick(y[:, 0], codebook), state

        y, state = self.begin(hidden, first, codebooks + 1)
        code, row = pick(y, 0)

        if dispatch.decode_backend(hidden.shape[0], 1) != "plain":
            # Unrolled, positions and codebooks are constants, so only the kernels remain.
            total, codes = raw(row), [code]
            for codebook in range(1, codebooks):
                code, row, state = predict(row, state, codebook)
                total = total + raw(row)
                codes.append(code)
            return jnp.stack(codes, axis=1), total

        def body(carry: Carry, codebook: jax.Array) -> tuple[Carry, jax.Array]:
            row, total, state = carry
            code, row, state = predict(row, state, codebook)
            return (row, total + raw(row), state), code

        (_, total, _), rest = jax.lax.scan(body, (row, raw(row), state), jnp.arange(1, codebooks))
        return jnp.concatenate([code[:, None], rest.T], axis=1), total

    def has_kernel(self) -> bool:
        """Whether one row can be generated by `generate_by_kernel` on the devices traced for."""
        return isinstance(self.heads[...], Streamed) and dispatch.persistent_kernels()

    def generate_by_kernel(
        self, hidden: jax.Array, first: jax.Array, noise: jax.Array, draw: Draw
    ) -> jax.Array:
        """As `generate`, of one row, in one launch: codes [1, Q-1].

        Args:
            hidden, first: [1, D talker].
            noise: [Q-1, V] Gumbel noise.
            draw: sampling settings of the row.
        """
        heads = self.heads[...]
        assert isinstance(heads, Streamed)
        inputs = self._project(jnp.concatenate([hidden, first]))  # [2, D]
        embeddings = self.embeddings[...]
        codes, _ = generate(heads.stream, embeddings, inputs, noise, draw, self.config)
        return codes[None]

    def begin(
        self, hidden: jax.Array, first: jax.Array, capacity: int
    ) -> tuple[jax.Array, TransformerState]:
        """The first two positions of a frame: output [B, D] at codebook 0, and the state.

        The output is that before the final norm; the state has one position for all rows.

        Args:
            hidden, first: [B, D talker] as in `generate`.
            capacity: positions of the caches, 2 or more.
        """
        slots = 2 if dispatch.caches_lengthen_after_prompt() else capacity
        state = self.transformer.init_state(hidden.shape[0], hidden.dtype, slots)
        # Rows of a frame have the same position, so caches are written at one place.
        state = state._replace(position=state.position[:1])
        x = self._project(jnp.stack([hidden, first], axis=1))  # [B, 2, D]
        if dispatch.matvec_backend(hidden.shape[0]) != "plain":
            # The kernels take one position at a time; the output of the first is not needed.
            _, state = self.transformer.step_blocks(x[:, :1], state)
            x = x[:, 1:]
        y, state = self.transformer.step_blocks(x, state)
        rest = ((0, 0), (0, capacity - slots), (0, 0), (0, 0))
        layers = jax.tree.map(lambda cache: jnp.pad(cache, rest), state.layers)  # [B, S, K, h]
        return y[:, -1], state._replace(layers=layers)

    def extend(
        self, codes: jax.Array, codebook: jax.Array, state: TransformerState
    ) -> tuple[jax.Array, TransformerState]:
        """Outputs before the final norm of n codes in one pass.

        Args:
            codes: [B, n] int.
            codebook: [B, n] int, the index of their tables (0 for codebook 1).
            state: each row has a position of its own.

        Returns:
            [B, n, D] and the state after all n positions.
        """
        rows = self.embeddings[...][codebook, codes]  # [B, n, D talker]
        return self.transformer.step_blocks(self._inputs(rows), state)

    def logits_at(self, x: jax.Array, codebook: jax.Array) -> jax.Array:
        """Final norm and one head per position; every row may need other heads.

        Args:
            x: [B, n, D] before the norm.
            codebook: [B, n] int, the index of the heads (0 for codebook 1).

        Returns:
            [B, n, V] float32.
        """
        norm = self.transformer.norm
        assert isinstance(norm, RMSNorm)
        heads = plain(self.heads[...])[codebook]  # [B, n, V, D]
        # `product` of each position, so that stored weights are read as `_logits` reads them.
        y = jax.vmap(jax.vmap(product))(norm(x), heads)
        return y.astype(jnp.float32)

    def at_once(self, hidden: jax.Array, first: jax.Array) -> jax.Array:
        """Logits of codebooks 1..Q-1 from the output at codebook 0, in one pass.

        Args:
            hidden, first: [B, D talker] as in `generate`.

        Returns:
            [B, Q-1, V] float32.
        """
        y = self.begin(hidden, first, 2)[0]  # [B, D]
        return self._logits(y).reshape(len(y), -1, self.config.vocab_size)

    def teacher_forced(self, hidden: jax.Array, first: jax.Array, codes: jax.Array) -> jax.Array:
        """Logits of every codebook given the true codes before it, in one pass (training).

        Args:
            hidden, first: [B, D talker] as in `generate`.
            codes: [B, Q-1] int, the true codes of codebooks 1..Q-1 (the last is not read).

        Returns:
            [B, Q-1, V] float32.
        """
        if self.config.pattern != "sequential":
            return self.at_once(hidden, first)
        y = self.forced_outputs(hidden, first, codes)
        return jnp.einsum("bqd,qvd->bqv", y, dense(plain(self.heads[...]))).astype(jnp.float32)

    def forced_outputs(self, hidden: jax.Array, first: jax.Array, codes: jax.Array) -> jax.Array:
        """Outputs after the final norm at codebooks 0..Q-2, the inputs of the Q-1 heads.

        Args:
            hidden, first, codes: as in `teacher_forced`.

        Returns:
            [B, Q-1, D].
        """
        rows = raw(lookup_codebooks(self.embeddings[...][: codes.shape[1] - 1], codes[:, :-1]))
        x = jnp.concatenate([jnp.stack([hidden, first], axis=1), rows], axis=1)  # [B, Q, D talker]
        return self.transformer(self._project(x))[:, 1:]

    def _logits(self, x: jax.Array, codebook: jax.Array | int | None = None) -> jax.Array:
        """Final norm and head of one codebook, or the heads of all, one after the other.

        Args:
            x: [B, D] before the norm.
            codebook: which head; None for all.

        Returns:
            [B, V] or [B, (Q-1) V] float32.
        """
        norm, heads = self.transformer.norm, plain(self.heads[...])
        assert isinstance(norm, RMSNorm)
        rows: Weight = matrix(heads, x.shape[1]) if codebook is None else heads
        backend = dispatch.matvec_backend(x.shape[0])
        y: jax.Array = norm_matvec(
            x, norm.scale[...], rows, norm.eps, codebook=codebook, backend=backend
        )
        return y.astype(jnp.float32)

    def _inputs(self, rows: Table) -> jax.Array:
        """Rows of the table as inputs [..., D] of the transformer."""
        return rows.rows if isinstance(rows, Projected) else self._project(raw(rows))

    def _project(self, x: jax.Array) -> jax.Array:
        return x if self.input_projection is None else self.input_projection(x)


def with_projected_rows(params: Params) -> Params:
    """Parameters of a `TTSModel` whose predictor reads preprojected embeddings.

    A code then costs one table row instead of the input projection. Models whose predictor is as
    wide as their talker have no such projection and are returned unchanged.
    """
    predictor = params.get("code_predictor") or {}
    if "input_projection" not in predictor or isinstance(predictor["embeddings"], Projected):
        return params
    linear = predictor["input_projection"]
    with matmul_precision(params):
        table = project(predictor["embeddings"], linear["kernel"], linear["bias"])
    return params | {"code_predictor": predictor | {"embeddings": table}}
