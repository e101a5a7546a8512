"""Transcripts by Whisper base of many waves at once, on the devices of this process.

The weights are those of `whisper.py`, in float32. Tokens are the most probable ones (no beam), and
nothing is left out as silence, so that a transcript may differ from that of `WhisperJudge` in a
word. On a GPU some hundred waves take a second, which a judge of every speech of a policy needs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer

from qtts_jax.configs.tokenizer_25hz import ENCODER_HOP
from qtts_jax.data.whisper import WhisperConfig, WhisperEncoder, window_mel
from qtts_jax.data.whisper_files import encoder_of, read_variables
from qtts_jax.evaluation.judges.whisper import MAX_TOKENS, files_of_weights, language_code
from qtts_jax.functional import Params, abstract, bind

# Of the multilingual vocabulary.
_END, _START, _TRANSCRIBE, _NO_TIMES = 50257, 50258, 50359, 50363
_PROMPT = 4  # start, language, task, no times
_EPS = 1e-5
_BLOCK = 5 * 16_000  # samples; waves are sent to the device in lengths of whole blocks


@dataclass(frozen=True)
class _Sizes:
    """What a program depends on besides shapes."""

    encoder: WhisperConfig
    heads: int
    layers: int
    precision: str


class WhisperBatchJudge:
    """Writes down what is said in many waves.

    Args:
        rows: windows of 30 s in memory at once; about 0.2 GB each.
        precision: of matrix products; "default" uses the tensor cores of a GPU (TF32).

    Raises:
        EvaluationError: a half of the weights is not installed.
    """

    def __init__(self, rows: int = 64, precision: str = "highest") -> None:
        files = files_of_weights()
        arrays = dict(read_variables(files["model.bin"], ""))
        config, encoder = encoder_of(arrays)
        layers = sum(name.endswith("/ffn/linear_0/weight") for name in arrays if "decoder" in name)
        self._sizes = _Sizes(config, int(arrays["decoder/num_heads"]), layers, precision)
        self._encoder = jax.tree.map(_float32, encoder)
        self._decoder = {
            name.removeprefix("decoder/"): _float32(x)
            for name, x in arrays.items()
            if name.startswith("decoder/") and x.dtype.kind == "f" and x.ndim
        }
        self._tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
        settings = json.loads(files["config.json"])
        never = [*settings["suppress_ids"], *range(_NO_TIMES, len(self._decoder[_TOKENS]))]
        self._never = jnp.zeros(len(self._decoder[_TOKENS])).at[jnp.asarray(never)].set(-jnp.inf)
        self._not_first = jnp.zeros_like(self._never)
        self._not_first = self._not_first.at[jnp.asarray(settings["suppress_ids_begin"])].set(
            -jnp.inf
        )
        self._rows = rows

    def transcribe(self, waves: Sequence[np.ndarray], languages: Sequence[str]) -> list[str]:
        """The words of waves [T] at 16 kHz, those beyond 30 s in windows of 30 s.

        Args:
            languages: full lower-case name of each.

        Raises:
            EvaluationError: a language without a metric.
        """
        size = self._sizes.encoder.samples
        windows = [
            (place, wave[start : start + size], language_code(language))
            for place, (wave, language) in enumerate(zip(waves, languages, strict=True))
            for start in range(0, len(wave), size)
        ]
        # Those of one length together, since a batch ends with its longest transcript.
        windows.sort(key=lambda each: len(each[1]))
        words: dict[int, list[str]] = {place: [] for place in range(len(waves))}
        for first in range(0, len(windows), self._rows):
            group = windows[first : first + self._rows]
            # Always as many rows, so that one program is compiled. Most waves are short: what
            # fills their windows is made on the device.
            longest = -(-len(group[-1][1]) // _BLOCK) * _BLOCK
            batch = np.zeros((self._rows, min(longest, size)), np.float32)
            lengths = np.ones(self._rows, np.int32)
            prompts = np.full((self._rows, _PROMPT), _START, np.int32)
            for row, (_, wave, code) in enumerate(group):
                batch[row, : len(wave)], lengths[row] = wave, len(wave)
                prompts[row] = _START, self._language(code), _TRANSCRIBE, _NO_TIMES
            tokens = _transcribe(
                self._sizes, self._encoder, self._decoder, self._never, self._not_first,
                _filled(batch, size), lengths, prompts,
            )  # fmt: skip
            for (place, _, _), row in zip(group, np.asarray(tokens), strict=False):
                text = [int(t) for t in row if t < _END]
                words[place].append(self._tokenizer.decode(text).strip())
        return [" ".join(words[place]).strip() for place in range(len(waves))]

    def _language(self, code: str) -> int:
        token: int | None = self._tokenizer.token_to_id(f"<|{code}|>")
        assert token is not None, code
        return token


_TOKENS = "embeddings/weight"


def _float32(x: Any) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


@functools.partial(jax.jit, static_argnums=1)
def _filled(waves: jax.Array, samples: int) -> jax.Array:
    """Waves [B, N] with zeros at their end: [B, samples]."""
    return jnp.pad(waves, ((0, 0), (0, samples - waves.shape[1])))


@functools.partial(jax.jit, static_argnums=0)
def _transcribe(
    sizes: _Sizes,
    encoder: Params,
    decoder: dict[str, jax.Array],
    never: jax.Array,
    not_first: jax.Array,
    waves: jax.Array,
    lengths: jax.Array,
    prompts: jax.Array,
) -> jax.Array:
    """The tokens [B, MAX_TOKENS] of windows [B, N] of `lengths` samples, filled with the end."""
    with jax.default_matmul_precision(sizes.precision):
        mel = window_mel(waves, sizes.encoder.n_mels)  # [B, T, M]
        # faster-whisper fills with zeros after the logarithm.
        real = jnp.arange(mel.shape[1]) < (lengths // ENCODER_HOP)[:, None]
        mel = jnp.where(real[..., None], mel, 0)
        features = bind(abstract(WhisperEncoder, sizes.encoder)[0], encoder)(mel)  # [B, S, D]
        return _decode(sizes, decoder, features, never, not_first, prompts)


def _decode(
    sizes: _Sizes,
    params: dict[str, jax.Array],
    features: jax.Array,
    never: jax.Array,
    not_first: jax.Array,
    prompts: jax.Array,
) -> jax.Array:
    """The most probable token after the other, until all rows have ended."""
    rows, steps = len(features), _PROMPT + MAX_TOKENS
    width = features.shape[-1]
    head = width // sizes.heads

    def linear(name: str, x: jax.Array) -> jax.Array:
        return x @ params[f"{name}/weight"].T + params[f"{name}/bias"]

    def norm(name: str, x: jax.Array) -> jax.Array:
        x = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + _EPS)
        return x * params[f"{name}/gamma"] + params[f"{name}/beta"]

    def split(x: jax.Array, parts: int) -> list[jax.Array]:
        """[..., parts * D] to [..., H, h] each."""
        return [y.reshape(*y.shape[:-1], sizes.heads, head) for y in jnp.split(x, parts, axis=-1)]

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: Any) -> jax.Array:
        scores = jnp.einsum("bhd,bshd->bhs", q, k) * head**-0.5
        weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1)
        return jnp.einsum("bhs,bshd->bhd", weights, v).reshape(rows, width)

    # Those that only fill the batch have ended before they begin.
    empty_rows = prompts[:, 1] == _START
    layers = [f"layer_{i}" for i in range(sizes.layers)]
    crossed = [split(linear(f"{name}/attention/linear_1", features), 2) for name in layers]

    def step(carry: Any) -> Any:
        place, tokens, ended, memory = carry
        token = jax.lax.dynamic_index_in_dim(tokens, place, 1, keepdims=False)  # [B]
        x = params[_TOKENS][token] + params["position_encodings/encodings"][place]  # [B, D]
        kept = []
        for name, (keys, values), encoded in zip(layers, memory, crossed, strict=True):
            inner = norm(f"{name}/self_attention/layer_norm", x)
            q, k, v = split(linear(f"{name}/self_attention/linear_0", inner), 3)
            keys = jax.lax.dynamic_update_index_in_dim(keys, k, place, 1)
            values = jax.lax.dynamic_update_index_in_dim(values, v, place, 1)
            kept.append((keys, values))
            mixed = attend(q, keys, values, jnp.arange(steps) <= place)
            x = x + linear(f"{name}/self_attention/linear_1", mixed)
            inner = norm(f"{name}/attention/layer_norm", x)
            (q,) = split(linear(f"{name}/attention/linear_0", inner), 1)
            mixed = attend(q, encoded[0], encoded[1], True)
            x = x + linear(f"{name}/attention/linear_2", mixed)
            inner = linear(f"{name}/ffn/linear_0", norm(f"{name}/ffn/layer_norm", x))
            x = x + linear(f"{name}/ffn/linear_1", jax.nn.gelu(inner, approximate=False))
        logits = norm("layer_norm", x) @ params[_TOKENS].T + never  # [B, V]
        logits = logits + jnp.where(place == _PROMPT - 1, not_first, 0)
        chosen = jnp.argmax(logits, axis=-1).astype(tokens.dtype)
        chosen = jnp.where(ended, _END, chosen)
        given = jax.lax.dynamic_index_in_dim(tokens, place + 1, 1, keepdims=False)
        following = jnp.where(place + 1 < _PROMPT, given, chosen)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, following, place + 1, 1)
        return place + 1, tokens, empty_rows | (following == _END), kept

    def goes_on(carry: Any) -> jax.Array:
        place, _, ended, _ = carry
        return (place < steps - 1) & ~jnp.all(ended)

    tokens = jnp.full((rows, steps), _END, jnp.int32).at[:, :_PROMPT].set(prompts)
    empty = jnp.zeros((rows, steps, sizes.heads, head))
    start = (jnp.int32(0), tokens, empty_rows, [(empty, empty)] * sizes.layers)
    return jax.lax.while_loop(goes_on, step, start)[1][:, _PROMPT:]
