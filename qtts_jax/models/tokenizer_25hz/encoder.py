"""Encoder of the 25 Hz tokenizer: log-mel windows, each independent of the others, to codes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from qtts_jax.configs.tokenizer_25hz import CONV_STRIDE, Encoder25HzConfig
from qtts_jax.layers.conv import Conv, ConvTranspose, valid_steps
from qtts_jax.layers.linear import Linear
from qtts_jax.layers.norm import LayerNorm
from qtts_jax.layers.param import normal, param
from qtts_jax.models.tokenizer_25hz.quantizer import VectorQuantizer
from qtts_jax.modules.whisper_block import NORM_EPS, WhisperBlock, sinusoids

CONV_KERNEL = 3


class Encoder25Hz(nnx.Module):
    """Two convolutions, transformer blocks, downsampling, codebook (upstream `WhisperEncoderVQ`).

    The recording is cut into windows of `config.window` steps of 20 ms. Convolutions, positions
    and attention do not cross windows, so windows are rows of a batch. The layers behind the
    codebook (`continuous`) serve to train the codes; encoding does not need them.

    Mel frames [.., T, M] come with the real frames `lengths` of each row, both T and lengths
    multiples of `config.frames_per_code`; frames behind a row's end are never read.
    """

    def __init__(self, config: Encoder25HzConfig, *, rngs: nnx.Rngs) -> None:
        c = self.config = config
        self.conv1 = Conv(c.n_mels, c.width, CONV_KERNEL, rngs=rngs)
        self.conv2 = Conv(c.width, c.width, CONV_KERNEL, stride=CONV_STRIDE, rngs=rngs)
        self.layers = nnx.List([WhisperBlock(c.width, c.heads, rngs=rngs) for _ in range(c.layers)])
        between = (c.width, c.width, c.downsample)
        scaled = c.downsample > 1
        self.downsample = Conv(*between, stride=c.downsample, rngs=rngs) if scaled else None
        self.upsample = ConvTranspose(*between, stride=c.downsample, rngs=rngs) if scaled else None
        self.quantizer = VectorQuantizer(c, rngs=rngs)
        embed = ("embed",)
        self.positioned = (
            Linear((c.width,), (c.width,), embed, (None,), bias=True, rngs=rngs)
            if c.positions_after_quantizer
            else None
        )
        self.norm = LayerNorm(c.width, NORM_EPS, rngs=rngs)
        self.output = Linear((c.width,), (c.output_width,), embed, (None,), bias=True, rngs=rngs)
        self.ends = param(rngs, (2, c.output_width), (None, None), normal(1.0))

    def hidden(
        self,
        mel: jax.Array,
        lengths: jax.Array,
        attended: jax.Array | None = None,
        layers: int | None = None,
    ) -> jax.Array:
        """Hidden steps of windows.

        Args:
            mel: [R, F, M], one window a row, F at most 2 * `config.window`.
            lengths: [R], real frames of each window.
            attended: steps whose keys take part in the attention of every window, a scalar; None
                for those of the window itself. In the official code it is the longest window of
                the call (`Quirks25Hz.window_mask`).
            layers: blocks to run; by default those in front of the codebook.

        Returns:
            [R, F / 2, D], undefined behind the end of a window.
        """
        steps, attended = self._steps(lengths, attended)
        mel = jnp.where(valid_steps(mel, lengths), mel, 0)
        with jax.named_scope("convolutions"):
            # A causal convolution shifted by one frame is centred.
            x = self.conv1(jnp.pad(mel, ((0, 0), (0, 1), (0, 0))))[:, 1:]  # [R, F, D]
            x = self.conv2(jax.nn.gelu(x, approximate=False))  # [R, F / 2, D]
            x = jax.nn.gelu(x, approximate=False)
        x = x + self._positions(x)
        for block in self.layers[: self.config.quantizer_layer if layers is None else layers]:
            with jax.named_scope("block"):
                x = block(x, steps, attended)
        return x

    def windows(self, mel: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Recordings [B, T, M] with frames [B] as windows [B W, F, M] with frames [B W].

        T is filled up to whole windows, unless a single one is shorter.
        """
        frames, size = mel.shape[1], CONV_STRIDE * self.config.window
        count = -(-frames // size)
        if count == 1:
            return mel, lengths
        mel = jnp.pad(mel, ((0, 0), (0, count * size - frames), (0, 0)))
        lengths = jnp.clip(lengths[:, None] - size * jnp.arange(count), 0, size)  # [B, W]
        return rearrange(mel, "b (w f) m -> (b w) f m", f=size), lengths.reshape(-1)

    def embed(
        self, mel: jax.Array, lengths: jax.Array, attended: jax.Array | None = None
    ) -> jax.Array:
        """Vectors that the codebook quantizes.

        Args:
            mel: [B, T, M], any number of windows of which the last may be shorter.
            lengths: [B], real frames of each row.
            attended: as `hidden`.

        Returns:
            [B, T / frames_per_code, D], undefined behind the end of a row.
        """
        batch, frames, _ = mel.shape
        mel, lengths = self.windows(mel, lengths)
        x = self.hidden(mel, lengths, attended)
        x = x if self.downsample is None else self.downsample(x)  # [B W, codes of a window, D]
        return rearrange(x, "(b w) t d -> b (w t) d", b=batch)[
            :, : frames // self.config.frames_per_code
        ]

    def encode(
        self, mel: jax.Array, lengths: jax.Array, attended: jax.Array | None = None
    ) -> jax.Array:
        """Codes [B, T / frames_per_code] int32; arguments as `embed`."""
        x = self.embed(mel, lengths, attended)
        with jax.named_scope("quantizer"):
            return self.quantizer.encode(x)

    def describe(
        self, codes: jax.Array, lengths: jax.Array, attended: jax.Array | None = None
    ) -> jax.Array:
        """The continuous output for the codes of windows, see `continuous`.

        Args:
            codes: [R, C].
            lengths, attended: as `hidden`.
        """
        return self.continuous(self.quantizer.decode(codes), lengths, attended)

    def continuous(
        self, x: jax.Array, lengths: jax.Array, attended: jax.Array | None = None
    ) -> jax.Array:
        """The continuous output for dequantized vectors of windows.

        These layers precede a text decoder in the training of the codebook. Two steps are
        averaged, so there is one vector per 40 ms. The official model puts the rows of `ends`
        around those of a recording.

        Args:
            x: [R, C, D], of `quantizer.decode`, or with a gradient in training.
            lengths, attended: as `hidden`.

        Returns:
            [R, F / 4, `config.output_width`], undefined behind the end of a window.
        """
        if self.config.window % 2:
            raise AssertionError(f"windows of {self.config.window} steps do not pair up")
        steps, attended = self._steps(lengths, attended)
        if self.positioned is not None:
            x = self.positioned(x + self._positions(x))
        if self.upsample is not None:
            x = self.upsample(x)  # [R, F / 2, D]
        for block in self.layers[self.config.quantizer_layer :]:
            x = block(x, steps, attended)
        pairs = rearrange(x[:, : x.shape[1] // 2 * 2], "r (t pair) d -> r t pair d", pair=2)
        return self.output(self.norm(jnp.mean(pairs, axis=2)))

    def init_state(self, batch: int, dtype: jnp.dtype) -> tuple[()]:
        """No state, because windows are independent."""
        return ()

    def step(
        self, mel: jax.Array, state: tuple[()], lengths: jax.Array | None = None
    ) -> tuple[jax.Array, tuple[()]]:
        """Codes of the next windows of recordings.

        Args:
            mel: [B, T, M], T a multiple of `config.frames_per_code`, and of the frames of a
                window in all but the last step.
            lengths: [B], real frames; None for all.

        Returns:
            codes [B, T / frames_per_code] int32 and the state; codes behind the end of a row are
            undefined.
        """
        if lengths is None:
            lengths = jnp.full((mel.shape[0],), mel.shape[1])
        return self.encode(mel, lengths), state

    def __call__(self, mel: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
        """Whole recordings [B, T, M] -> codes [B, T / frames_per_code] int32."""
        return self.step(mel, (), lengths)[0]

    def _steps(self, lengths: jax.Array, attended: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Real steps and attended slots of windows, both [R]."""
        steps = lengths // CONV_STRIDE
        return steps, steps if attended is None else jnp.broadcast_to(attended, steps.shape)

    def _positions(self, x: jax.Array) -> jax.Array:
        return jnp.asarray(sinusoids(x.shape[1], self.config.width), x.dtype)
