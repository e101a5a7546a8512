"""Frozen configurations of every model, read from and written to released `config.json` files.

Values come from the file: a field that a model needs and the file lacks is an error, and so is a
field this package does not know, because guessing either would give wrong audio without a word.
All dataclasses are hashable, so that they can be static arguments of a jitted function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qtts_jax.configs.hf_fields import Fields
from qtts_jax.errors import ConfigError

MODEL_TYPES = ("base", "custom_voice", "voice_design")
TOKENIZER_12HZ = "qwen3_tts_tokenizer_12hz"

# The official code suppresses the last 1024 entries of the codec vocabulary (all special ids and
# speakers live there) except the end-of-speech id.
RESERVED_CODEC_IDS = 1024

# The head width of a code predictor whose section does not name it.
PREDICTOR_HEAD_DIM = 128


@dataclass(frozen=True)
class TransformerConfig:
    """One stack of pre-norm transformer blocks (talker, code predictor and both codec halves).

    Attributes:
        width: model width D.
        layers: number of blocks.
        heads, kv_heads, head_dim: query heads H, key/value heads K, head width h.
        ffn_width: feed-forward width F.
        norm: "rms" (RMSNorm) or "layer" (LayerNorm with bias).
        ffn: "swiglu" (gated SiLU) or "gelu" (plain two-layer with exact GELU).
        qk_norm: RMSNorm over the head width of queries and keys (Qwen3).
        layer_scale: initial value of the per-channel residual scales; None for no scales.
        window: keys a query may see, itself included; None for all earlier keys.
        max_positions: the longest sequence the model was made for.
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_width: int
    norm_eps: float
    rope_theta: float
    max_positions: int
    norm: Literal["rms", "layer"] = "rms"
    ffn: Literal["swiglu", "gelu"] = "swiglu"
    qk_norm: bool = False
    layer_scale: float | None = None
    window: int | None = None
    init_std: float = 0.02

    def __post_init__(self) -> None:
        if min(self.heads, self.kv_heads) < 1 or self.heads % self.kv_heads:
            raise ConfigError(
                f"{self.heads} query heads cannot share {self.kv_heads} key/value heads: "
                "num_attention_heads must be a multiple of num_key_value_heads."
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim must be even for rotary positions, not {self.head_dim}.")


@dataclass(frozen=True)
class CodePredictorConfig:
    """The MTP head that predicts codebooks 1..Q-1 of a frame (paper section 3.2)."""

    transformer: TransformerConfig
    vocab_size: int
    codebooks: int


@dataclass(frozen=True)
class TalkerConfig:
    """The dual-track language model that predicts codebook 0 of every frame.

    `languages`, `speakers` and `dialects` are (name, id) and (speaker, dialect name) pairs, tuples
    so that the configuration stays hashable. `code_predictor` is None for one-codebook models.
    """

    transformer: TransformerConfig
    code_predictor: CodePredictorConfig | None
    vocab_size: int
    text_vocab_size: int
    text_width: int
    codebooks: int
    pad_id: int
    bos_id: int
    eos_id: int
    think_id: int
    nothink_id: int
    think_bos_id: int
    think_eos_id: int
    languages: tuple[tuple[str, int], ...]
    speakers: tuple[tuple[str, int], ...] = ()
    dialects: tuple[tuple[str, str], ...] = ()
    positions_per_second: int = 13
    mrope_section: tuple[int, ...] = ()

    @property
    def codebook_size(self) -> int:
        """Entries of codebook 0: the vocabulary without its reserved tail."""
        return self.vocab_size - RESERVED_CODEC_IDS


@dataclass(frozen=True)
class SpeakerEncoderConfig:
    """ECAPA-TDNN over log-mels; the released files store only `enc_dim` and `sample_rate`."""

    embedding_dim: int
    sample_rate: int
    n_mels: int = 128
    channels: tuple[int, ...] = (512, 512, 512, 512, 1536)
    kernel_sizes: tuple[int, ...] = (5, 3, 3, 3, 1)
    dilations: tuple[int, ...] = (1, 2, 3, 4, 1)
    attention_channels: int = 128
    res2net_scale: int = 8
    se_channels: int = 128

    @classmethod
    def from_hf(cls, data: Mapping[str, Any], where: str) -> SpeakerEncoderConfig:
        """Read `speaker_encoder_config`; absent architecture fields take the values above.

        These defaults are part of the released format: its files never store them.
        """
        f = Fields(data, where)
        config = cls(
            embedding_dim=f.integer("enc_dim", minimum=1),
            sample_rate=f.integer("sample_rate", minimum=1),
            n_mels=f.integer("mel_dim", cls.n_mels, minimum=1),
            channels=f.integers("enc_channels", cls.channels, minimum=1),
            kernel_sizes=f.integers("enc_kernel_sizes", cls.kernel_sizes, minimum=1),
            dilations=f.integers("enc_dilations", cls.dilations, minimum=1),
            attention_channels=f.integer(
                "enc_attention_channels", cls.attention_channels, minimum=1
            ),
            res2net_scale=f.integer("enc_res2net_scale", cls.res2net_scale, minimum=1),
            se_channels=f.integer("enc_se_channels", cls.se_channels, minimum=1),
        )
        f.finish()
        return config

    def to_hf(self) -> dict[str, Any]:
        """The fields of `speaker_encoder_config`."""
        return {
            "enc_dim": self.embedding_dim,
            "sample_rate": self.sample_rate,
            "mel_dim": self.n_mels,
            "enc_channels": list(self.channels),
            "enc_kernel_sizes": list(self.kernel_sizes),
            "enc_dilations": list(self.dilations),
            "enc_attention_channels": self.attention_channels,
            "enc_res2net_scale": self.res2net_scale,
            "enc_se_channels": self.se_channels,
        }


@dataclass(frozen=True)
class TTSConfig:
    """A whole text-to-speech checkpoint: talker, code predictor and, for Base, speaker encoder.

    Attributes:
        model_type: "base" (cloning), "custom_voice" (preset speakers) or "voice_design".
        size: the released size tag, "0b6" or "1b7" (0.6B CustomVoice ignores instructions).
        further_types: types whose prompts the model was trained on too. A released checkpoint has
            none; nano is of all three types.
        im_start_id ... tts_eos_id: text-vocabulary ids of the chat frame and the text track.
    """

    model_type: str
    size: str
    tokenizer_type: str
    talker: TalkerConfig
    speaker_encoder: SpeakerEncoderConfig | None
    im_start_id: int
    im_end_id: int
    assistant_id: int | None
    tts_pad_id: int
    tts_bos_id: int
    tts_eos_id: int
    further_types: tuple[str, ...] = ()

    @property
    def types(self) -> tuple[str, ...]:
        """`model_type` and the further ones."""
        return (self.model_type, *self.further_types)

    @classmethod
    def from_hf(cls, data: Mapping[str, Any]) -> TTSConfig:
        """Read a released `config.json`.

        Raises:
            ConfigError: a needed field is missing, a field is unknown, or a value is impossible.
        """
        f = Fields(data, "config.json")
        f.expect("model_type", "qwen3_tts", optional=False)
        model_type = f.choice("tts_model_type", MODEL_TYPES)
        further = f.choices("qtts_jax_further_types", MODEL_TYPES, ())
        if len({model_type, *further}) <= len(further):
            raise ConfigError(
                f"config.json names a type twice: {model_type} and qtts_jax_further_types "
                f"{list(further)}; name each once."
            )
        speaker = f.mapping("speaker_encoder_config", None)
        clones = "base" in (model_type, *further)
        if clones and speaker is None:
            raise ConfigError("config.json of a base model lacks speaker_encoder_config; add it.")
        config = cls(
            model_type=model_type,
            size=f.string("tts_model_size"),
            tokenizer_type=f.string("tokenizer_type"),
            talker=_talker_from_hf(f.mapping("talker_config")),
            # Only Base checkpoints hold a speaker encoder; the official dump of the other types
            # may still carry the section with class defaults.
            speaker_encoder=SpeakerEncoderConfig.from_hf(speaker, "speaker_encoder_config")
            if clones
            else None,
            im_start_id=f.integer("im_start_token_id"),
            im_end_id=f.integer("im_end_token_id"),
            # Kept for the way back only: prompts take it from the text vocabulary.
            assistant_id=f.integer("assistant_token_id", None),
            tts_pad_id=f.integer("tts_pad_token_id"),
            tts_bos_id=f.integer("tts_bos_token_id"),
            tts_eos_id=f.integer("tts_eos_token_id"),
            further_types=further,
        )
        f.finish()
        return config

    def to_hf(self) -> dict[str, Any]:
        """A `config.json` that the official package reads as the same model."""
        data: dict[str, Any] = {
            "architectures": ["Qwen3TTSForConditionalGeneration"],
            "model_type": "qwen3_tts",
            "tokenizer_type": self.tokenizer_type,
            "tts_model_size": self.size,
            "tts_model_type": self.model_type,
            "im_start_token_id": self.im_start_id,
            "im_end_token_id": self.im_end_id,
            "tts_pad_token_id": self.tts_pad_id,
            "tts_bos_token_id": self.tts_bos_id,
            "tts_eos_token_id": self.tts_eos_id,
            "talker_config": _talker_to_hf(self.talker),
        }
        if self.assistant_id is not None:
            data["assistant_token_id"] = self.assistant_id
        if self.further_types:
            data["qtts_jax_further_types"] = list(self.further_types)
        if self.speaker_encoder is not None:
            data["speaker_encoder_config"] = self.speaker_encoder.to_hf()
        return data


def _qwen3_from_hf(f: Fields, head_dim: int | None = None) -> TransformerConfig:
    """The block fields that talker and code predictor share.

    Args:
        head_dim: what an absent `head_dim` means; None for hidden_size / num_attention_heads.
    """
    f.expect("hidden_act", "silu")
    f.expect("attention_bias", False)
    # Weight tying would change the parameter tree; no released model uses it.
    f.expect("tie_word_embeddings", False)
    f.expect("use_sliding_window", False)
    f.expect("sliding_window", None)
    layers = f.integer("num_hidden_layers", minimum=1)
    f.expect("layer_types", ["full_attention"] * layers)
    width = f.integer("hidden_size", minimum=1)
    heads = f.integer("num_attention_heads", minimum=1)
    return TransformerConfig(
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=f.integer("num_key_value_heads", minimum=1),
        head_dim=f.integer("head_dim", head_dim or width // heads, minimum=1),
        ffn_width=f.integer("intermediate_size", minimum=1),
        norm_eps=f.number("rms_norm_eps"),
        rope_theta=f.number("rope_theta"),
        max_positions=f.integer("max_position_embeddings", minimum=1),
        qk_norm=True,
        init_std=f.number("initializer_range", 0.02),
    )


def _qwen3_to_hf(c: TransformerConfig) -> dict[str, Any]:
    return {
        "attention_bias": False,
        "attention_dropout": 0,
        "hidden_act": "silu",
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.ffn_width,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "max_position_embeddings": c.max_positions,
        "initializer_range": c.init_std,
        "use_sliding_window": False,
        "sliding_window": None,
        "use_cache": True,
    }


def _talker_from_hf(data: Mapping[str, Any]) -> TalkerConfig:
    f = Fields(data, "talker_config")
    rope = f.mapping("rope_scaling", None) or {}
    # The official class overwrites rope_type with the older field type where both are given.
    rope_type = rope.get("type", rope.get("rope_type", "default"))
    if rope_type != "default":
        raise ConfigError(
            f"talker_config.rope_scaling type {rope_type!r} is not supported; only the released "
            "'default' is."
        )
    codebooks = f.integer("num_code_groups", minimum=1)
    predictor_data = f.mapping("code_predictor_config", None if codebooks == 1 else Fields.REQUIRED)
    predictor = None
    if codebooks > 1 and predictor_data is not None:
        p = Fields(predictor_data, "code_predictor_config")
        p.expect("rope_scaling", None)
        predictor = CodePredictorConfig(
            # Unlike the talker's, the official class of the predictor has a default of its own.
            transformer=_qwen3_from_hf(p, head_dim=PREDICTOR_HEAD_DIM),
            vocab_size=p.integer("vocab_size", minimum=1),
            codebooks=p.integer("num_code_groups", minimum=1),
        )
        p.finish()
        if predictor.codebooks != codebooks:
            raise ConfigError(
                f"code_predictor_config.num_code_groups is {predictor.codebooks} but "
                f"talker_config.num_code_groups is {codebooks}; they must be equal."
            )
    config = TalkerConfig(
        transformer=_qwen3_from_hf(f),
        code_predictor=predictor,
        vocab_size=f.integer("vocab_size", minimum=RESERVED_CODEC_IDS + 1),
        text_vocab_size=f.integer("text_vocab_size", minimum=1),
        text_width=f.integer("text_hidden_size", minimum=1),
        codebooks=codebooks,
        pad_id=f.integer("codec_pad_id"),
        bos_id=f.integer("codec_bos_id"),
        eos_id=f.integer("codec_eos_token_id"),
        think_id=f.integer("codec_think_id"),
        nothink_id=f.integer("codec_nothink_id"),
        think_bos_id=f.integer("codec_think_bos_id"),
        think_eos_id=f.integer("codec_think_eos_id"),
        languages=_pairs(f.mapping("codec_language_id"), "codec_language_id", int),
        speakers=_pairs(f.mapping("spk_id", None) or {}, "spk_id", int),
        dialects=_pairs(
            {k: v for k, v in (f.mapping("spk_is_dialect", None) or {}).items() if v},
            "spk_is_dialect",
            str,
        ),
        positions_per_second=f.integer("position_id_per_seconds", 13),
        mrope_section=Fields(rope, "talker_config.rope_scaling").integers("mrope_section", ()),
    )
    f.finish()
    for speaker, dialect in config.dialects:
        if dialect not in dict(config.languages):
            raise ConfigError(
                f"speaker {speaker!r} has dialect {dialect!r}, which codec_language_id lacks; "
                "add its id there."
            )
    return config


def _talker_to_hf(c: TalkerConfig) -> dict[str, Any]:
    data: dict[str, Any] = {"model_type": "qwen3_tts_talker"} | _qwen3_to_hf(c.transformer)
    # The multimodal sections are kept for the official reader only: its three position rows are
    # always identical, which is plain one-dimensional RoPE.
    half = c.transformer.head_dim // 2
    sections = c.mrope_section or (half - 2 * (half // 3), half // 3, half // 3)
    data |= {
        "rope_scaling": {
            "interleaved": True,
            "mrope_section": list(sections),
            "rope_type": "default",
            "type": "default",
        },
        "position_id_per_seconds": c.positions_per_second,
        "vocab_size": c.vocab_size,
        "text_vocab_size": c.text_vocab_size,
        "text_hidden_size": c.text_width,
        "num_code_groups": c.codebooks,
        "codec_pad_id": c.pad_id,
        "codec_bos_id": c.bos_id,
        "codec_eos_token_id": c.eos_id,
        "codec_think_id": c.think_id,
        "codec_nothink_id": c.nothink_id,
        "codec_think_bos_id": c.think_bos_id,
        "codec_think_eos_id": c.think_eos_id,
        "codec_language_id": dict(c.languages),
        "spk_id": dict(c.speakers),
        "spk_is_dialect": {name: dict(c.dialects).get(name, False) for name, _ in c.speakers},
    }
    if c.code_predictor is not None:
        p = c.code_predictor
        data["code_predictor_config"] = (
            {"model_type": "qwen3_tts_talker_code_predictor"}
            | _qwen3_to_hf(p.transformer)
            | {
                "rope_scaling": None,
                "layer_types": ["full_attention"] * p.transformer.layers,
                "vocab_size": p.vocab_size,
                "num_code_groups": p.codebooks,
            }
        )
    return data


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
