"""Frozen configurations of the text-to-speech models; `tts_sections` reads and writes their files.

All dataclasses are hashable, so that they can be static arguments of a jitted function. What
follows from their fields is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from qtts_jax.errors import ConfigError

MODEL_TYPES = ("base", "custom_voice", "voice_design")
TOKENIZER_12HZ = "qwen3_tts_tokenizer_12hz"

# The official code suppresses the last 1024 entries of the codec vocabulary (all special ids and
# speakers live there) except the end-of-speech id.
RESERVED_CODEC_IDS = 1024

# How the residual codes of a frame depend on each other; the first is that of the released models.
Pattern = Literal["sequential", "parallel", "delay"]

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
    """The MTP head that predicts codebooks 1..Q-1 of a frame (paper section 3.2).

    All patterns have the same parameters, so that they compare at equal size.

    Attributes:
        pattern: which codes each code is predicted from, beside the talker's hidden state and the
            newest codebook 0. "sequential" (released models): all earlier codebooks of its frame,
            one pass for each codebook. "parallel": none, one pass for the whole frame. "delay":
            through the talker, codebook q of a frame q steps after its codebook 0
            (`generation/delay.py`).
    """

    transformer: TransformerConfig
    vocab_size: int
    codebooks: int
    pattern: Pattern = "sequential"


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

    def __post_init__(self) -> None:
        # JAX would take the nearest row of the embedding for an id outside.
        ids = {
            "codec_pad_id": self.pad_id,
            "codec_bos_id": self.bos_id,
            "codec_eos_token_id": self.eos_id,
            "codec_think_id": self.think_id,
            "codec_nothink_id": self.nothink_id,
            "codec_think_bos_id": self.think_bos_id,
            "codec_think_eos_id": self.think_eos_id,
            **{f"codec_language_id[{name!r}]": id_ for name, id_ in self.languages},
            **{f"spk_id[{name!r}]": id_ for name, id_ in self.speakers},
        }
        for name, id_ in ids.items():
            if not 0 <= id_ < self.vocab_size:
                raise ConfigError(
                    f"talker_config.{name} is {id_}, but the codec embedding has rows 0 to "
                    f"{self.vocab_size - 1} (vocab_size); correct the id."
                )

    @cached_property
    def codebook_size(self) -> int:
        """Entries of codebook 0: the vocabulary without its reserved tail."""
        return self.vocab_size - RESERVED_CODEC_IDS

    @cached_property
    def lag(self) -> int:
        """Steps of the talker between the first and the last code of a frame (delay pattern)."""
        predictor = self.code_predictor
        return self.codebooks - 1 if predictor and predictor.pattern == "delay" else 0

    @cached_property
    def context(self) -> int:
        """Positions that a prompt and its frames may take together."""
        return self.transformer.max_positions - self.lag


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


@dataclass(frozen=True)
class TTSConfig:
    """A whole text-to-speech checkpoint: talker, code predictor and, for Base, speaker encoder.

    Attributes:
        model_type: "base" (cloning), "custom_voice" (preset speakers) or "voice_design".
        size: the released size tag, "0b6" or "1b7" (0.6B CustomVoice ignores instructions).
        further_types: types whose prompts the model was trained on too. A released checkpoint has
            none; nano is of all three types.
        normalize_text: the model was trained on normalised text (`qtts_jax.text.spoken`), so texts
            to speak are normalised by default. A released checkpoint reads raw text.
        named_letters: in normalised text, spelled letters are given by name ("F B I" as "eff bee
            eye"), which the model reads better.
        longest_text: characters of the longest text that the model speaks well; longer ones are
            split. None where it is not known, as of released checkpoints.
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
    normalize_text: bool = False
    named_letters: bool = False
    longest_text: int | None = None

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
        from qtts_jax.configs.tts_sections import TTS

        return TTS.read(data)

    def to_hf(self) -> dict[str, Any]:
        """A `config.json`, which the official package reads as the same model where it has one."""
        from qtts_jax.configs.tts_sections import TTS

        return TTS.write(self)
