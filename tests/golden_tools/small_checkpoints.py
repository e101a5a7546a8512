"""Small checkpoints of varied architecture in the released directory layout.

Every file is derived from a `Spec`: the configs start from the released ones in `configs/` and
have their sizes replaced, the text vocabulary is a byte-level BPE learned from a few lines, and
the weights follow from the `manifest.json` written beside each config (see `detweights.py`).
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
RELEASED = {
    "base": "Qwen3-TTS-12Hz-1.7B-Base.config.json",
    "custom_voice": "Qwen3-TTS-12Hz-1.7B-CustomVoice.config.json",
    "voice_design": "Qwen3-TTS-12Hz-1.7B-VoiceDesign.config.json",
}
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<tts_pad>",
    "<tts_text_bos>",
    "<tts_text_eod>",
)
CODEC_IDS = (
    "codec_pad_id",
    "codec_bos_id",
    "codec_eos_token_id",
    "codec_think_id",
    "codec_nothink_id",
    "codec_think_bos_id",
    "codec_think_eos_id",
)
_CORPUS = (
    "the thing in there is another one and then the other singing bird heard the reading "
    "of a sentence that goes on for some time before it ends slowly with a low calm voice "
    "and every word which was spoken here is only made to give the pieces something to learn"
)


@dataclass(frozen=True)
class Stack:
    """Sizes of one transformer: layers, width D, heads H, kv heads K, head width, FFN width."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int

    def as_config(self) -> dict[str, int]:
        """Return the fields as a released config spells them."""
        return {
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.ffn,
        }


@dataclass(frozen=True)
class Spec:
    """One small checkpoint. `overrides` replaces config fields by dotted path."""

    name: str
    kind: str
    size: str
    talker: Stack
    predictor: Stack
    books: int
    entries: int
    decoder: Stack
    encoder: Stack
    text_width: int = 40
    merges: int = 24
    special_ids_seed: int = 0
    windows: tuple[int, int] = (7, 9)
    decoder_channels: tuple[int, int, int] = (32, 24, 64)
    decoder_rates: tuple[tuple[int, ...], tuple[int, ...]] = ((8, 5, 4, 3), (2, 2))
    encoder_books: int = 20
    encoder_filters: int = 4
    encoder_ratios: tuple[int, ...] = (8, 6, 5, 4)
    samples_per_frame: int = 1920
    speaker_encoder: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)


def mrope_section(head_dim: int) -> list[int]:
    """Split head_dim / 2 rotary frequencies over the three position rows, largest first."""
    third, rest = divmod(head_dim // 2, 3)
    return [third + rest, third, third]


def codec_ids(spec: Spec) -> dict[str, Any]:
    """Draw special, language and speaker ids of the talker vocabulary, all distinct."""
    template = _released(spec)["talker_config"]
    languages, speakers = template["codec_language_id"], template["spk_id"]
    draws = np.random.default_rng(spec.special_ids_seed).permutation(1024) + spec.entries
    ids = iter(draws.tolist())
    fields: dict[str, Any] = {name: next(ids) for name in CODEC_IDS}
    fields["codec_language_id"] = {name: next(ids) for name in languages}
    fields["spk_id"] = {name: next(ids) for name in speakers}
    return fields


def model_config(spec: Spec, text_vocab: int, special: Mapping[str, int]) -> dict[str, Any]:
    """Return the root config.json of a checkpoint."""
    config = copy.deepcopy(_released(spec))
    talker = config["talker_config"]
    predictor = talker["code_predictor_config"]
    config["tts_model_size"] = spec.size
    config["im_start_token_id"] = special["<|im_start|>"]
    config["im_end_token_id"] = special["<|im_end|>"]
    config["tts_pad_token_id"] = special["<tts_pad>"]
    config["tts_bos_token_id"] = special["<tts_text_bos>"]
    config["tts_eos_token_id"] = special["<tts_text_eod>"]
    config["assistant_token_id"] = special["assistant"]
    talker.update(spec.talker.as_config(), **codec_ids(spec))
    talker.update(
        vocab_size=spec.entries + 1024,
        num_code_groups=spec.books,
        text_hidden_size=spec.text_width,
        text_vocab_size=text_vocab,
    )
    talker["rope_scaling"]["mrope_section"] = mrope_section(spec.talker.head_dim)
    predictor.update(spec.predictor.as_config())
    predictor.update(
        vocab_size=spec.entries,
        num_code_groups=spec.books,
        layer_types=["full_attention"] * spec.predictor.layers,
    )
    if spec.kind == "base":
        config["speaker_encoder_config"] = {
            "enc_dim": spec.talker.width,
            "sample_rate": 24000,
            **spec.speaker_encoder,
        }
    return _overridden(config, spec.overrides, "")


def tokenizer_config(spec: Spec) -> dict[str, Any]:
    """Return speech_tokenizer/config.json of a checkpoint."""
    config = json.loads((GOLDEN / "configs" / "VERIFIED_speech_tokenizer_config.json").read_text())
    decoder, encoder = config["decoder_config"], config["encoder_config"]
    latent, codebook_dim, channels = spec.decoder_channels
    config["encoder_valid_num_quantizers"] = spec.books
    config["decode_upsample_rate"] = spec.samples_per_frame
    config["encode_downsample_rate"] = spec.samples_per_frame
    decoder.update(spec.decoder.as_config())
    decoder.update(
        latent_dim=latent,
        codebook_dim=codebook_dim,
        decoder_dim=channels,
        codebook_size=spec.entries,
        num_quantizers=spec.books,
        sliding_window=spec.windows[0],
        upsample_rates=list(spec.decoder_rates[0]),
        upsampling_ratios=list(spec.decoder_rates[1]),
        vector_quantization_hidden_dimension=codebook_dim,
    )
    encoder.update(spec.encoder.as_config())
    encoder.update(
        codebook_size=spec.entries,
        codebook_dim=codebook_dim // 2,
        vector_quantization_hidden_dimension=codebook_dim // 2,
        num_quantizers=spec.encoder_books,
        num_filters=spec.encoder_filters,
        sliding_window=spec.windows[1],
        upsampling_ratios=list(spec.encoder_ratios),
        upsample_groups=spec.encoder.width,
        _frame_rate=config["input_sample_rate"] / spec.samples_per_frame,
    )
    return _overridden(config, spec.overrides, "speech_tokenizer.")


def byte_alphabet() -> list[str]:
    """Return the printable stand-in character of each byte value (GPT-2's byte-level BPE)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    extra = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(extra)) for b in range(256)]


def learn_merges(count: int) -> list[tuple[str, str]]:
    """Return BPE merges: `assistant`, `user` and `eT` whole, then `count` from the corpus.

    `eT` joins a small and a capital letter, which not every split pattern keeps in one piece.
    """
    merges: list[tuple[str, str]] = []
    for word in ("assistant", "user", "eT"):
        for i in range(1, len(word)):
            if (word[:i], word[i]) not in merges:
                merges.append((word[:i], word[i]))
    space = byte_alphabet()[ord(" ")]
    words = [list(_CORPUS.split()[0])] + [[space, *w] for w in _CORPUS.split()[1:]]
    for _ in range(count):
        pairs = Counter(p for w in words for p in pairwise(w))
        pair = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(pair)
        words = [_merged(w, pair) for w in words]
    return merges


def write_text_files(spec: Spec, directory: Path) -> tuple[int, dict[str, int]]:
    """Write vocab.json, merges.txt and tokenizer_config.json.

    Returns the rows of the text embedding and the ids of the special tokens and `assistant`.
    """
    merges = learn_merges(spec.merges)
    tokens = dict.fromkeys([*byte_alphabet(), *("".join(pair) for pair in merges)])
    vocab = {token: i for i, token in enumerate(tokens)}
    turn = spec.special_ids_seed % len(SPECIAL_TOKENS)
    order = SPECIAL_TOKENS[turn:] + SPECIAL_TOKENS[:turn]
    special = {token: len(vocab) + i for i, token in enumerate(order)}
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    tokenizer = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": token, **flags, "special": True} for token, i in special.items()
        },
        "additional_special_tokens": [t for t in order if t != "<|endoftext|>"],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    _write_json(directory / "vocab.json", vocab)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(directory / "tokenizer_config.json", tokenizer)
    return len(vocab) + len(special) + 3, {**special, "assistant": vocab["assistant"]}


def write_checkpoint(spec: Spec, directory: Path, seed: int) -> None:
    """Write a whole checkpoint but its weights (`detweights.materialize` adds them).

    Needs the official package: tensor names and shapes come from its own modules.
    """
    from tests.golden_tools.official import model_tensor_shapes, tokenizer_tensor_shapes

    speech = directory / "speech_tokenizer"
    speech.mkdir(parents=True, exist_ok=True)
    text_vocab, special = write_text_files(spec, directory)
    config = model_config(spec, text_vocab, special)
    codec_config = tokenizer_config(spec)
    for name, path in (
        ("VERIFIED_generation_config.json", directory / "generation_config.json"),
        ("VERIFIED_preprocessor_config.json", directory / "preprocessor_config.json"),
        ("VERIFIED_speech_tokenizer_preprocessor_config.json", speech / "preprocessor_config.json"),
    ):
        path.write_text((GOLDEN / "configs" / name).read_text())
    _write_json(directory / "config.json", config)
    _write_json(speech / "config.json", codec_config)
    for place, shapes, key in (
        (directory, model_tensor_shapes(config), seed),
        (speech, tokenizer_tensor_shapes(codec_config), seed + 1),
    ):
        _write_json(place / "manifest.json", {"seed": key, "tensors": shapes, "computed": {}})


def _released(spec: Spec) -> dict[str, Any]:
    return json.loads((GOLDEN / "configs" / RELEASED[spec.kind]).read_text())


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def _overridden(config: dict[str, Any], overrides: Mapping[str, Any], prefix: str) -> Any:
    for path, value in overrides.items():
        if path.startswith("speech_tokenizer.") != bool(prefix):
            continue
        *parents, leaf = path.removeprefix(prefix).split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    return config


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
