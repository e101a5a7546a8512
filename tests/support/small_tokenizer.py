"""A tokenizer of some ten thousand parameters, and audio for it."""

from dataclasses import replace

import numpy as np

from qtts_jax.configs.presets import tiny_tokenizer, tokenizer_12hz
from qtts_jax.training.tokenizer.config import (
    CodebookTraining,
    DiscriminatorConfig,
    TokenizerTraining,
)

FRAME = 16
TEACHER = 3
SCALES = ((32, 5), (128, 20))
PLAIN = TokenizerTraining(mel_scales=SCALES, discriminator=None)
FULL = replace(
    PLAIN,
    discriminator=DiscriminatorConfig((3,), (4, 6), (32,), 3),
    decoded_frames=10,
    teacher_width=TEACHER,
    codebook=CodebookTraining(bypass=0.2),
)


def toy_config(books=4, stored=6, entries=32):
    """16 samples a frame; the encoder stores more books than it returns, as the released one."""
    config = tiny_tokenizer(tokenizer_12hz())

    def small(stack):
        return replace(stack, width=32, layers=1, heads=2, kv_heads=2, head_dim=16, ffn_width=32)

    encoder, decoder = config.encoder, config.decoder
    quantizer = replace(encoder.quantizer, entries=entries, width=16, model_width=32)
    return replace(
        config,
        codebooks=books,
        encoder=replace(
            encoder,
            filters=16,
            ratios=(8,),
            transformer=small(encoder.transformer),
            quantizer=replace(quantizer, books=stored),
        ),
        decoder=replace(
            decoder,
            transformer=small(decoder.transformer),
            quantizer=replace(quantizer, books=books),
            latent_width=32,
            decoder_width=64,
            upsampling_ratios=(2,),
            upsample_rates=(8,),
        ),
    )


def toy_audio(rows, frames, seed=0):
    """Sums of gliding tones, float32 [rows, frames * FRAME]."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames * FRAME) / (frames * FRAME)
    waves = [
        sum(
            rng.uniform(0.1, 0.3) * np.sin(rng.uniform(20, 200) * t + rng.uniform(50, 400) * t**2)
            for _ in range(3)
        )
        for _ in range(rows)
    ]
    return np.stack(waves).astype(np.float32)


def toy_batch(rows=4, frames=16, seed=0):
    """Audio and teacher features at 1.5 features a frame."""
    rng = np.random.default_rng(seed)
    teacher = rng.standard_normal((rows, frames * 3 // 2, TEACHER)).astype(np.float32)
    return {"audio": toy_audio(rows, frames, seed), "teacher": teacher}
