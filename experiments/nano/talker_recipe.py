"""The small talker that this repository trains and carries: sizes and hyperparameters."""

from __future__ import annotations

from experiments.nano.text_vocabulary import TextIds
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.configs.tts import (
    RESERVED_CODEC_IDS,
    TOKENIZER_12HZ,
    CodePredictorConfig,
    SpeakerEncoderConfig,
    TalkerConfig,
    TransformerConfig,
    TTSConfig,
)
from qtts_jax.data.talker_layout import LayoutMix
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.trainer import TrainerConfig

WIDTH = 256


def nano_talker(
    tokenizer: Tokenizer12HzConfig,
    text: TextIds,
    languages: tuple[str, ...] = ("english",),
    speakers: tuple[str, ...] = (),
) -> TTSConfig:
    """A cloning talker (type "base") for the codes of a tokenizer, two hundredths of the 0.6B.

    9.6 M parameters for 22 books of 256 entries. With 16 books of 2048, the same bit rate, it has
    22 M, most of them embeddings and heads of codes.

    Args:
        tokenizer: number and sizes of the codebooks.
        languages: names of the language tags.
        speakers: names of preset speakers; a checkpoint of this type clones, and its presets are
            for a later one of type "custom_voice" with the same weights.
    """
    books = tokenizer.codebooks
    entries = tokenizer.decoder.quantizer.entries
    stack = TransformerConfig(
        width=WIDTH,
        layers=8,
        heads=4,
        kv_heads=2,
        head_dim=64,
        ffn_width=9 * WIDTH // 4,
        norm_eps=1e-6,
        rope_theta=1e6,
        max_positions=2048,
        qk_norm=True,
    )
    predictor = TransformerConfig(
        width=3 * WIDTH // 4,
        layers=3,
        heads=6,
        kv_heads=3,
        head_dim=32,
        ffn_width=WIDTH,
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
            speakers=tuple((name, entries + 200 + i) for i, name in enumerate(speakers)),
            mrope_section=(12, 10, 10),
        ),
        speaker_encoder=nano_speaker_encoder(tokenizer.input_sample_rate, WIDTH),
        im_start_id=text.im_start,
        im_end_id=text.im_end,
        assistant_id=text.assistant,
        tts_pad_id=text.tts_pad,
        tts_bos_id=text.tts_bos,
        tts_eos_id=text.tts_eos,
    )


def nano_speaker_encoder(sample_rate: int, width: int) -> SpeakerEncoderConfig:
    """A fifth of the released channels, for a talker of `width`."""
    return SpeakerEncoderConfig(
        embedding_dim=width,
        sample_rate=sample_rate,
        channels=(96, 96, 96, 96, 288),
        attention_channels=48,
        se_channels=48,
    )


# Lengths of the batches, each of which is compiled, and the positions of one batch. Half of the
# examples have less than 80 positions, so with the shortest length of 256 two thirds were padding.
NANO_POSITIONS, NANO_BATCH_POSITIONS = (112, 160, 256, 640), 16384
# Frames of a row that train the code predictor, which is most of the cost of a step.
NANO_PREDICTOR_FRAMES = 32
# Merges of the text, and letters of the longest token.
NANO_MERGES, NANO_TOKEN_LETTERS = 768, 3
# Without the noise and the reading loss the talker learned its sentences by heart, codes in, codes
# out, and left the text unread; with the noise alone it did so later.
NANO_CODE_NOISE = 0.8
NANO_ALIGNMENT_WEIGHT = 1.0
# A word is understood by the codes that the code predictor gives (codebook_importance.py), so
# each of its 21 books counts half as much as codebook 0; with the published 0.3 it is a seventieth.
NANO_PREDICTOR_WEIGHT = 10.0
# Clips of voices that have few of them come so often in an epoch: one voice has most of the hours.
NANO_RARE_TIMES = 4
# In-context cloning doubles the length of a row, and the voices are mostly clones or presets.
NANO_MIX = LayoutMix(
    stream_text=0.5, language_tag=0.5, preset=0.5, no_speaker=0.15, in_context=0.15, instruct=0.5
)

# A bound only, as for the tokenizer.
_STEPS = 1_000_000
_ADAM = OptimizerConfig(
    1e-3,
    warmup_steps=300,
    b2=0.98,
    weight_decay=0.05,
)
NANO_TALKER_TRAINER = TrainerConfig(
    steps=_STEPS,
    optimizers={"talker": _ADAM, "code_predictor": _ADAM, "speaker_encoder": _ADAM},
    steps_per_call=4,
    average_decay=0.999,
    log_every=50,
    save_every=2000,
    # The loss falls from 68, that of a guess among all codes and tokens, to 32. A run that begins
    # with the weights of another, or goes on after its decay, rises by less than 5.
    divergence_margin=20.0,
)
