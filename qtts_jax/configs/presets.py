"""Configurations of the released 12 Hz checkpoints, and a tiny one for tests and teaching.

Sources: paper Table 1 and the `config.json` of each checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qtts_jax.configs.tokenizer_12hz import (
    Decoder12HzConfig,
    Encoder12HzConfig,
    QuantizerConfig,
    Tokenizer12HzConfig,
)
from qtts_jax.configs.tokenizer_25hz import TOKENIZER_25HZ, Tokenizer25HzConfig
from qtts_jax.configs.tts import (
    TOKENIZER_12HZ,
    CodePredictorConfig,
    SpeakerEncoderConfig,
    TalkerConfig,
    TransformerConfig,
    TTSConfig,
)

LANGUAGES = (
    ("chinese", 2055),
    ("english", 2050),
    ("german", 2053),
    ("italian", 2070),
    ("portuguese", 2071),
    ("spanish", 2054),
    ("japanese", 2058),
    ("korean", 2064),
    ("french", 2061),
    ("russian", 2069),
)
DIALECT_IDS = (("beijing_dialect", 2074), ("sichuan_dialect", 2062))
SPEAKERS = (
    ("serena", 3066),
    ("vivian", 3065),
    ("uncle_fu", 3010),
    ("ryan", 3061),
    ("aiden", 2861),
    ("ono_anna", 2873),
    ("sohee", 2864),
    ("eric", 2875),
    ("dylan", 2878),
)
SPEAKER_DIALECTS = (("eric", "sichuan_dialect"), ("dylan", "beijing_dialect"))


def tts_12hz(size: str, model_type: str) -> TTSConfig:
    """A released 12 Hz checkpoint.

    Args:
        size: "0b6" or "1b7".
        model_type: "base", "custom_voice" or (1b7 only) "voice_design".
    """
    width, ffn = {"0b6": (1024, 3072), "1b7": (2048, 6144)}[size]
    custom = model_type == "custom_voice"
    stack = TransformerConfig(
        width=width,
        layers=28,
        heads=16,
        kv_heads=8,
        head_dim=128,
        ffn_width=ffn,
        norm_eps=1e-6,
        rope_theta=1e6,
        max_positions=32768,
        qk_norm=True,
    )
    predictor = replace(stack, width=1024, layers=5, ffn_width=3072, max_positions=65536)
    return TTSConfig(
        model_type=model_type,
        size=size,
        tokenizer_type=TOKENIZER_12HZ,
        talker=TalkerConfig(
            transformer=stack,
            code_predictor=CodePredictorConfig(predictor, vocab_size=2048, codebooks=16),
            vocab_size=3072,
            text_vocab_size=151936,
            text_width=2048,
            codebooks=16,
            pad_id=2148,
            bos_id=2149,
            eos_id=2150,
            think_id=2154,
            nothink_id=2155,
            think_bos_id=2156,
            think_eos_id=2157,
            languages=LANGUAGES + (DIALECT_IDS if custom else ()),
            speakers=SPEAKERS if custom else (),
            dialects=SPEAKER_DIALECTS if custom else (),
            mrope_section=(24, 20, 20),
        ),
        speaker_encoder=SpeakerEncoderConfig(embedding_dim=width, sample_rate=24000)
        if model_type == "base"
        else None,
        im_start_id=151644,
        im_end_id=151645,
        assistant_id=77091,
        tts_pad_id=151671,
        tts_bos_id=151672,
        tts_eos_id=151673,
    )


def tts_25hz(size: str, model_type: str) -> TTSConfig:
    """A 25 Hz talker: one codebook of 32768 and a linear head, no code predictor (section 3.1).

    None was published. The networks are those of the 12 Hz talkers of the same size; the reserved
    codec ids keep their order and move up behind the larger codebook, as between the official
    class defaults (4096 codes) and the released files (2048).
    """
    config = tts_12hz(size, model_type)
    c, entries = config.talker, 32768
    shift = entries - c.codebook_size

    def moved(pairs: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
        return tuple((name, i + shift) for name, i in pairs)

    ids = ("pad_id", "bos_id", "eos_id", "think_id", "nothink_id", "think_bos_id", "think_eos_id")
    talker = replace(
        c,
        code_predictor=None,
        vocab_size=c.vocab_size + shift,
        codebooks=1,
        languages=moved(c.languages),
        speakers=moved(c.speakers),
        positions_per_second=25,
        **{name: getattr(c, name) + shift for name in ids},
    )
    return replace(config, tokenizer_type=TOKENIZER_25HZ, talker=talker)


def tokenizer_12hz() -> Tokenizer12HzConfig:
    """The released 12 Hz tokenizer (170.6 M parameters, 12.5 frames a second, 2200 bit/s)."""
    encoder = TransformerConfig(
        width=512,
        layers=8,
        heads=8,
        kv_heads=8,
        head_dim=64,
        ffn_width=2048,
        norm_eps=1e-5,
        rope_theta=1e4,
        max_positions=8000,
        norm="layer",
        ffn="gelu",
        layer_scale=0.01,
        window=250,
    )
    decoder = TransformerConfig(
        width=512,
        layers=8,
        heads=16,
        kv_heads=16,
        head_dim=64,
        ffn_width=1024,
        norm_eps=1e-5,
        rope_theta=1e4,
        max_positions=8000,
        layer_scale=0.01,
        window=72,
    )
    return Tokenizer12HzConfig(
        encoder=Encoder12HzConfig(
            channels=1,
            filters=64,
            kernel=7,
            last_kernel=3,
            residual_kernel=3,
            residual_layers=1,
            dilation_growth=2,
            compress=2,
            ratios=(4, 5, 6, 8),
            downsample=2,
            transformer=encoder,
            quantizer=QuantizerConfig(
                books=32, semantic=1, entries=2048, width=256, model_width=512
            ),
            sample_rate=24000,
        ),
        decoder=Decoder12HzConfig(
            quantizer=QuantizerConfig(
                books=16, semantic=1, entries=2048, width=256, model_width=512
            ),
            transformer=decoder,
            latent_width=1024,
            upsampling_ratios=(2, 2),
            decoder_width=1536,
            upsample_rates=(8, 5, 4, 3),
        ),
        codebooks=16,
        input_sample_rate=24000,
        output_sample_rate=24000,
    )


def tokenizer_25hz_class_defaults() -> Tokenizer25HzConfig:
    """The default values of the official configuration classes of the 25 Hz tokenizer.

    Its halves do not fit each other (`Tokenizer25HzConfig.inconsistency`): the decoder is that of
    a 50 Hz model with 8192 codes. No other values were ever published.
    """
    decoder: dict[str, Any] = {"dit_config": {}, "bigvgan_config": {}}
    data = {"model_type": TOKENIZER_25HZ, "encoder_config": {}, "decoder_config": decoder}
    return Tokenizer25HzConfig.from_hf(data)


def tokenizer_25hz() -> Tokenizer25HzConfig:
    """The class defaults with what makes them a 25 Hz tokenizer of 32768 codes (375 bit/s).

    Attention blocks of 32 mel frames are the packets of 8 codes of the paper (Table 2).
    """
    config = tokenizer_25hz_class_defaults()
    dit = replace(config.decoder.dit, code_entries=32769, repeats=4, block=32)
    decoder = replace(config.decoder, dit=dit)
    return replace(
        config,
        decoder=decoder,
        input_sample_rate=config.encoder.sample_rate,
        decode_upsample_rate=decoder.samples_per_code,
        encode_downsample_rate=config.encoder.samples_per_code,
    )


PRESETS: dict[str, Callable[[], TTSConfig | Tokenizer12HzConfig | Tokenizer25HzConfig]] = {
    "Qwen3-TTS-12Hz-0.6B-Base": lambda: tts_12hz("0b6", "base"),
    "Qwen3-TTS-12Hz-0.6B-CustomVoice": lambda: tts_12hz("0b6", "custom_voice"),
    "Qwen3-TTS-12Hz-1.7B-Base": lambda: tts_12hz("1b7", "base"),
    "Qwen3-TTS-12Hz-1.7B-CustomVoice": lambda: tts_12hz("1b7", "custom_voice"),
    "Qwen3-TTS-12Hz-1.7B-VoiceDesign": lambda: tts_12hz("1b7", "voice_design"),
    "Qwen3-TTS-Tokenizer-12Hz": tokenizer_12hz,
    "Qwen3-TTS-Tokenizer-25Hz": tokenizer_25hz,
    "Qwen3-TTS-25Hz-0.6B": lambda: tts_25hz("0b6", "base"),
    "Qwen3-TTS-25Hz-0.6B-CustomVoice": lambda: tts_25hz("0b6", "custom_voice"),
    "Qwen3-TTS-25Hz-1.7B": lambda: tts_25hz("1b7", "base"),
    "Qwen3-TTS-25Hz-1.7B-CustomVoice": lambda: tts_25hz("1b7", "custom_voice"),
}


def tiny(config: TTSConfig) -> TTSConfig:
    """The same kind of checkpoint at a size that runs in milliseconds on a CPU.

    Widths, depths, heads and vocabularies of the networks shrink; ids of the codec vocabulary
    stay, so that every layout is the real one.
    """
    talker = config.talker
    stack = replace(
        talker.transformer, width=64, layers=2, heads=4, kv_heads=2, head_dim=16, ffn_width=96
    )
    predictor = talker.code_predictor
    if predictor is not None:
        small = replace(
            predictor.transformer,
            width=48,
            layers=2,
            heads=4,
            kv_heads=2,
            head_dim=16,
            ffn_width=64,
        )
        predictor = replace(predictor, transformer=small)
    speaker = config.speaker_encoder
    if speaker is not None:
        speaker = replace(
            speaker,
            embedding_dim=64,
            channels=(32, 32, 32, 32, 96),
            attention_channels=16,
            res2net_scale=4,
            se_channels=16,
        )
    talker = replace(
        talker,
        transformer=stack,
        code_predictor=predictor,
        text_width=48,
        mrope_section=(4, 2, 2),
    )
    return replace(config, talker=talker, speaker_encoder=speaker)


def tiny_tokenizer(config: Tokenizer12HzConfig) -> Tokenizer12HzConfig:
    """The 12 Hz tokenizer at a size that runs in milliseconds on a CPU; strides stay."""
    encoder, decoder = config.encoder, config.decoder

    def shrink(c: TransformerConfig, width: int, ffn_width: int) -> TransformerConfig:
        return replace(
            c, width=width, layers=2, heads=4, kv_heads=4, head_dim=16, ffn_width=ffn_width
        )

    return replace(
        config,
        encoder=replace(
            encoder,
            filters=8,
            transformer=shrink(encoder.transformer, 64, 96),
            quantizer=replace(encoder.quantizer, width=16, model_width=64),
        ),
        decoder=replace(
            decoder,
            transformer=shrink(decoder.transformer, 48, 72),
            quantizer=replace(decoder.quantizer, width=16, model_width=32),
            latent_width=48,
            decoder_width=64,
        ),
    )


def tiny_tokenizer_25hz(config: Tokenizer25HzConfig) -> Tokenizer25HzConfig:
    """The 25 Hz tokenizer at a size that runs in milliseconds on a CPU; all rates stay."""
    encoder, dit, vocoder = config.encoder, config.decoder.dit, config.decoder.vocoder
    reference = replace(
        dit.reference_encoder,
        embedding_dim=8,
        channels=(8, 8, 8, 8, 24),
        attention_channels=4,
        se_channels=4,
    )
    small = replace(
        dit,
        width=32,
        layers=4,
        heads=2,
        head_dim=16,
        code_width=12,
        # Half way and at both ends, as in the large network.
        look_ahead_layers=(1,),
        look_back_layers=(0, 3),
        xvector_width=10,
        reference_encoder=reference,
    )
    return replace(
        config,
        encoder=replace(
            encoder,
            width=32,
            heads=2,
            layers=3,
            quantizer_layer=2,
            codebook_width=32,
            output_width=24,
        ),
        decoder=replace(
            config.decoder,
            dit=small,
            vocoder=replace(vocoder, width=2 ** len(vocoder.upsample_rates)),
        ),
    )
