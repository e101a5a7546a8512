"""Library of the nano recipe: sizes and hyperparameters of the talker."""

from __future__ import annotations

from experiments import command
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
from qtts_jax.training.trainer_config import TrainerConfig

WIDTH = 256


def nano_talker(
    tokenizer: Tokenizer12HzConfig,
    text: TextIds,
    languages: tuple[str, ...] = ("english",),
    speakers: tuple[str, ...] = (),
) -> TTSConfig:
    """A cloning talker (type "base") for the codes of a tokenizer, two hundredths of the 0.6B.

    9.6 M parameters for 22 codebooks of 256 entries. With 16 of 2048, the same bit rate, it has
    22 M, most of them embeddings and heads of codes.

    Args:
        tokenizer: number and sizes of the codebooks.
        languages: names of the language tags.
        speakers: names of preset speakers; a checkpoint of this type clones, and its presets are
            for a later one of type "custom_voice" with the same weights.
    """
    codebooks = tokenizer.codebooks
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
            code_predictor=CodePredictorConfig(predictor, vocab_size=entries, codebooks=codebooks),
            vocab_size=entries + RESERVED_CODEC_IDS,
            text_vocab_size=text.size,
            text_width=WIDTH // 2,
            codebooks=codebooks,
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


# Bucket lengths (each is compiled once) and the positions of one batch. Half of the examples have
# fewer than 80 positions: with a shortest bucket of 256, two thirds of a batch were padding.
NANO_POSITIONS, NANO_BATCH_POSITIONS = (112, 160, 256, 640), 16384
# Frames per row that train the code predictor, which takes most of the time of a step.
NANO_PREDICTOR_FRAMES = 32
# Merges of the text vocabulary, and letters of its longest token.
NANO_MERGES, NANO_TOKEN_LETTERS = 768, 3
# Without code noise and the alignment loss the talker memorised its sentences as a language model
# of codes and ignored the text; with the noise alone it did so later.
NANO_CODE_NOISE = 0.8
NANO_ALIGNMENT_WEIGHT = 1.0
# Intelligibility depends on the codes of the code predictor (codebook_importance.py), so each of
# its 21 codebooks has half the weight of codebook 0; the published 0.3 gives it a seventieth.
NANO_PREDICTOR_WEIGHT = 10.0
# Repeats per epoch for clips of rare speakers, because one speaker has most of the hours.
NANO_RARE_TIMES = 4
# In-context cloning is rare because it doubles the length of a row.
NANO_MIX = LayoutMix(
    stream_text=0.5, language_tag=0.5, preset=0.5, no_speaker=0.15, in_context=0.15, instruct=0.5
)

# Only an upper bound: a run ends by its time limit.
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
    # The loss falls from 68 (uniform predictions) to 32. Starting from the weights of another run,
    # or resuming after the decay, raises it by less than 5.
    divergence_margin=20.0,
)


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.train.talker"))
