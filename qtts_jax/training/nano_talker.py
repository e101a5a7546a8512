"""The small talker that this repository trains and carries: sizes and hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass

from qtts_jax.config import (
    RESERVED_CODEC_IDS,
    TOKENIZER_12HZ,
    CodePredictorConfig,
    SpeakerEncoderConfig,
    TalkerConfig,
    TransformerConfig,
    TTSConfig,
)
from qtts_jax.config_12hz import Tokenizer12HzConfig
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.trainer import TrainerConfig

WIDTH = 256


@dataclass(frozen=True)
class TextIds:
    """The special ids of a small text vocabulary of `size` entries (bytes and merges first)."""

    size: int
    im_start: int
    im_end: int
    assistant: int
    tts_pad: int
    tts_bos: int
    tts_eos: int


def nano_talker(
    tokenizer: Tokenizer12HzConfig, text: TextIds, languages: tuple[str, ...] = ("english",)
) -> TTSConfig:
    """A cloning talker (type "base") for the codes of a tokenizer, two hundredths of the 0.6B.

    With 16 books of 2048 entries most of its parameters are embeddings and heads of codes; fewer
    entries in more books (22 of 256 have the same bit rate) make it half as large.

    Args:
        tokenizer: number and sizes of the codebooks.
        languages: names of the language tags.
    """
    books = tokenizer.codebooks
    entries = tokenizer.decoder.quantizer.entries
    stack = TransformerConfig(
        width=WIDTH,
        layers=8,
        heads=4,
        kv_heads=2,
        head_dim=64,
        ffn_width=3 * WIDTH,
        norm_eps=1e-6,
        rope_theta=1e6,
        max_positions=2048,
        qk_norm=True,
    )
    predictor = TransformerConfig(
        width=WIDTH // 2,
        layers=3,
        heads=4,
        kv_heads=2,
        head_dim=32,
        ffn_width=3 * WIDTH // 2,
        norm_eps=1e-6,
        rope_theta=1e6,
        max_positions=2048,
        qk_norm=True,
    )
    # Special ids lie as in the released vocabulary, counted from the end of codebook 0.
    return TTSConfig(
        model_type="base",
        size="nano",
        tokenizer_type=TOKENIZER_12HZ,
        talker=TalkerConfig(
            transformer=stack,
            code_predictor=CodePredictorConfig(predictor, vocab_size=entries, codebooks=books),
            vocab_size=entries + RESERVED_CODEC_IDS,
            text_vocab_size=text.size,
            text_width=WIDTH // 2,
            codebooks=books,
            pad_id=entries + 100,
            bos_id=entries + 101,
            eos_id=entries + 102,
            think_id=entries + 106,
            nothink_id=entries + 107,
            think_bos_id=entries + 108,
            think_eos_id=entries + 109,
            languages=tuple((name, entries + 2 + i) for i, name in enumerate(languages)),
            mrope_section=(12, 10, 10),
        ),
        speaker_encoder=SpeakerEncoderConfig(
            embedding_dim=WIDTH,
            sample_rate=tokenizer.input_sample_rate,
            channels=(96, 96, 96, 96, 288),
            attention_channels=48,
            se_channels=48,
        ),
        im_start_id=text.im_start,
        im_end_id=text.im_end,
        assistant_id=text.assistant,
        tts_pad_id=text.tts_pad,
        tts_bos_id=text.tts_bos,
        tts_eos_id=text.tts_eos,
    )


_STEPS = 20_000
_ADAM = OptimizerConfig(
    1e-3,
    warmup_steps=500,
    decay="cosine",
    total_steps=_STEPS,
    b2=0.98,
    weight_decay=0.05,
)
NANO_TALKER_TRAINER = TrainerConfig(
    steps=_STEPS,
    optimizers={"talker": _ADAM, "code_predictor": _ADAM, "speaker_encoder": _ADAM},
    average_decay=0.999,
)
