"""Tables of the sections of a text-to-speech `config.json`.

Values come from the file: a field that a model needs and the file lacks is an error, and so is a
field this package does not know, because guessing either would give wrong audio without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from qtts_jax.configs.fields import Fields
from qtts_jax.configs.sections import (
    REQUIRED,
    Row,
    Section,
    Values,
    derived,
    hf,
    integer,
    integers,
    number,
    only,
    string,
    subsection,
    unread,
)
from qtts_jax.configs.tts import (
    MODEL_TYPES,
    PREDICTOR_HEAD_DIM,
    RESERVED_CODEC_IDS,
    CodePredictorConfig,
    Pattern,
    SpeakerEncoderConfig,
    TalkerConfig,
    TTSConfig,
)
from qtts_jax.errors import ConfigError

# The released files store the first two fields only: the values of the others are part of the
# released format.
SPEAKER_ENCODER = Section(
    SpeakerEncoderConfig,
    "speaker_encoder_config",
    hf("enc_dim", "embedding_dim", integer(1)),
    hf("sample_rate", "sample_rate", integer(1)),
    hf("mel_dim", "n_mels", integer(1), SpeakerEncoderConfig.n_mels),
    hf("enc_channels", "channels", integers(1), SpeakerEncoderConfig.channels),
    hf("enc_kernel_sizes", "kernel_sizes", integers(1), SpeakerEncoderConfig.kernel_sizes),
    hf("enc_dilations", "dilations", integers(1), SpeakerEncoderConfig.dilations),
    hf(
        "enc_attention_channels",
        "attention_channels",
        integer(1),
        SpeakerEncoderConfig.attention_channels,
    ),
    hf("enc_res2net_scale", "res2net_scale", integer(1), SpeakerEncoderConfig.res2net_scale),
    hf("enc_se_channels", "se_channels", integer(1), SpeakerEncoderConfig.se_channels),
)


def _qwen3(head_dim: int | None = None) -> tuple[Row, ...]:
    """The block fields that talker and code predictor share.

    Args:
        head_dim: what an absent `head_dim` means; None for hidden_size / num_attention_heads.
    """

    def default_head_dim(values: Values) -> int:
        return head_dim or values["transformer.width"] // values["transformer.heads"]

    return (
        only("attention_bias", False),
        unread("attention_dropout", 0),
        only("hidden_act", "silu"),
        hf("hidden_size", "transformer.width", integer(1)),
        hf("num_hidden_layers", "transformer.layers", integer(1)),
        hf("num_attention_heads", "transformer.heads", integer(1)),
        hf("num_key_value_heads", "transformer.kv_heads", integer(1)),
        hf("head_dim", "transformer.head_dim", integer(1), default_head_dim),
        hf("intermediate_size", "transformer.ffn_width", integer(1)),
        hf("rms_norm_eps", "transformer.norm_eps", number),
        hf("rope_theta", "transformer.rope_theta", number),
        hf("max_position_embeddings", "transformer.max_positions", integer(1)),
        hf("initializer_range", "transformer.init_std", number, 0.02),
        only("use_sliding_window", False),
        # Without effect, whatever it is, where `use_sliding_window` is false.
        unread("sliding_window", None),
        unread("use_cache", True),
        # Weight tying would change the parameter tree; no released model uses it.
        only("tie_word_embeddings", False, written=False),
        derived("transformer.qk_norm", True),
    )


def _expect_full_attention(f: Fields, values: Values) -> None:
    f.expect("layer_types", ["full_attention"] * values["transformer.layers"])


_CODE_PREDICTOR = Section(
    CodePredictorConfig,
    "code_predictor_config",
    unread("model_type", "qwen3_tts_talker_code_predictor"),
    # Unlike the talker's, the official class of the predictor has a default of its own.
    *_qwen3(head_dim=PREDICTOR_HEAD_DIM),
    only("rope_scaling", None),
    Row(
        "layer_types",
        None,
        _expect_full_attention,
        lambda c: ["full_attention"] * c.transformer.layers,
        late=True,
    ),
    hf("vocab_size", "vocab_size", integer(1)),
    hf("num_code_groups", "codebooks", integer(1)),
    # The official class has the sequential pattern only, so its files do not name one.
    hf(
        "qtts_jax_pattern",
        "pattern",
        lambda f, name, default: f.choice(name, get_args(Pattern)) if f.has(name) else default,
        CodePredictorConfig.pattern,
        write=lambda value: None if value == CodePredictorConfig.pattern else value,
        omit=True,
    ),
)


def _read_rope_scaling(f: Fields, values: Values) -> tuple[int, ...]:
    """The multimodal sections, after a check that the rotation is the plain one."""
    rope = f.mapping("rope_scaling", None) or {}
    # The official class overwrites rope_type with the older field type where both are given.
    rope_type = rope.get("type", rope.get("rope_type", "default"))
    if rope_type != "default":
        raise ConfigError(
            f"talker_config.rope_scaling type {rope_type!r} is not supported; only the released "
            "'default' is."
        )
    return Fields(rope, "talker_config.rope_scaling").integers("mrope_section", ())


def _write_rope_scaling(c: TalkerConfig) -> dict[str, Any]:
    """Kept for the official reader: its three position rows are always identical, which is plain
    one-dimensional RoPE."""
    half = c.transformer.head_dim // 2
    sections = c.mrope_section or (half - 2 * (half // 3), half // 3, half // 3)
    return {
        "interleaved": True,
        "mrope_section": list(sections),
        "rope_type": "default",
        "type": "default",
    }


def _read_dialects(f: Fields, values: Values) -> tuple[tuple[str, str], ...]:
    data = f.mapping("spk_is_dialect", None) or {}
    dialects = _pairs({k: v for k, v in data.items() if v}, "spk_is_dialect", str)
    for speaker, dialect in dialects:
        if dialect not in dict(values["languages"]):
            raise ConfigError(
                f"speaker {speaker!r} has dialect {dialect!r}, which codec_language_id lacks; "
                "add its id there."
            )
    return dialects


def _read_code_predictor(f: Fields, values: Values) -> CodePredictorConfig | None:
    codebooks = values["codebooks"]
    data = f.mapping("code_predictor_config", None if codebooks == 1 else REQUIRED)
    if codebooks == 1 or data is None:
        return None
    predictor = _CODE_PREDICTOR.read(data)
    if predictor.codebooks != codebooks:
        raise ConfigError(
            f"code_predictor_config.num_code_groups is {predictor.codebooks} but "
            f"talker_config.num_code_groups is {codebooks}; they must be equal."
        )
    return predictor


_TALKER = Section(
    TalkerConfig,
    "talker_config",
    unread("model_type", "qwen3_tts_talker"),
    *_qwen3(),
    Row(None, None, _expect_full_attention, late=True),
    Row("rope_scaling", "mrope_section", _read_rope_scaling, _write_rope_scaling),
    hf("position_id_per_seconds", "positions_per_second", integer(), 13),
    hf("vocab_size", "vocab_size", integer(RESERVED_CODEC_IDS + 1)),
    hf("text_vocab_size", "text_vocab_size", integer(1)),
    hf("text_hidden_size", "text_width", integer(1)),
    hf("num_code_groups", "codebooks", integer(1)),
    hf("codec_pad_id", "pad_id", integer()),
    hf("codec_bos_id", "bos_id", integer()),
    hf("codec_eos_token_id", "eos_id", integer()),
    hf("codec_think_id", "think_id", integer()),
    hf("codec_nothink_id", "nothink_id", integer()),
    hf("codec_think_bos_id", "think_bos_id", integer()),
    hf("codec_think_eos_id", "think_eos_id", integer()),
    Row(
        "codec_language_id",
        "languages",
        lambda f, values: _pairs(f.mapping("codec_language_id"), "codec_language_id", int),
        lambda c: dict(c.languages),
    ),
    Row(
        "spk_id",
        "speakers",
        lambda f, values: _pairs(f.mapping("spk_id", None) or {}, "spk_id", int),
        lambda c: dict(c.speakers),
    ),
    Row(
        "spk_is_dialect",
        "dialects",
        _read_dialects,
        lambda c: {name: dict(c.dialects).get(name, False) for name, _ in c.speakers},
        late=True,
    ),
    Row(
        "code_predictor_config",
        "code_predictor",
        _read_code_predictor,
        lambda c: c.code_predictor and _CODE_PREDICTOR.write(c.code_predictor),
        late=True,
        omit=True,
    ),
)


def _read_speaker_encoder(f: Fields, values: Values) -> SpeakerEncoderConfig | None:
    """Only Base checkpoints hold a speaker encoder; the official dump of the other types may still
    carry the section with class defaults."""
    data = f.mapping("speaker_encoder_config", None)
    model_type, further = values["model_type"], values["further_types"]
    if len({model_type, *further}) <= len(further):
        raise ConfigError(
            f"config.json names a type twice: {model_type} and qtts_jax_further_types "
            f"{list(further)}; name each once."
        )
    if "base" not in (model_type, *further):
        return None
    if data is None:
        raise ConfigError("config.json of a base model lacks speaker_encoder_config; add it.")
    return SPEAKER_ENCODER.read(data)


def _own_flag(key: str, attribute: str) -> Row:
    """A boolean of this package's own checkpoints, written only where it is true."""
    return hf(
        key,
        attribute,
        lambda f, name, default: f.boolean(name, default),
        False,
        write=lambda value: value or None,
        omit=True,
    )


TTS = Section(
    TTSConfig,
    "config.json",
    unread("architectures", ["Qwen3TTSForConditionalGeneration"]),
    only("model_type", "qwen3_tts", optional=False),
    hf("tokenizer_type", "tokenizer_type", string),
    hf("tts_model_size", "size", string),
    hf("tts_model_type", "model_type", lambda f, name, default: f.choice(name, MODEL_TYPES)),
    hf("im_start_token_id", "im_start_id", integer()),
    hf("im_end_token_id", "im_end_id", integer()),
    hf("tts_pad_token_id", "tts_pad_id", integer()),
    hf("tts_bos_token_id", "tts_bos_id", integer()),
    hf("tts_eos_token_id", "tts_eos_id", integer()),
    subsection("talker_config", "talker", _TALKER),
    # Kept for the way back only: prompts take it from the text vocabulary.
    hf("assistant_token_id", "assistant_id", integer(), None, omit=True),
    hf(
        "qtts_jax_further_types",
        "further_types",
        lambda f, name, default: f.choices(name, MODEL_TYPES, default),
        (),
        omit=True,
    ),
    _own_flag("qtts_jax_normalize_text", "normalize_text"),
    _own_flag("qtts_jax_named_letters", "named_letters"),
    hf("qtts_jax_longest_text", "longest_text", integer(1), None, omit=True),
    Row(
        "speaker_encoder_config",
        "speaker_encoder",
        _read_speaker_encoder,
        lambda c: c.speaker_encoder and SPEAKER_ENCODER.write(c.speaker_encoder),
        late=True,
        omit=True,
    ),
)


def _pairs(data: Mapping[str, Any], where: str, kind: type) -> tuple[tuple[str, Any], ...]:
    """Lower-cased (name, value) pairs; one-element lists are unwrapped (seen in some ports)."""
    out = []
    for name, value in data.items():
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"{where}[{name!r}] must be {kind.__name__}, not {value!r}.")
        out.append((name.lower(), value))
    return tuple(out)
