"""Text files of a small model: bytes, the words of the chat frame, and the special tokens.

A model of a few million parameters cannot hold tables for a vocabulary of 150,000; English is
spelled, and letters are what a small model learns pronunciation from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tts_pad>", "<tts_text_bos>",
           "<tts_text_eod>")  # fmt: skip
# The official prompts are cut by position, so each of these must be a single token.
FRAME_WORDS = ("assistant", "user")


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


def byte_vocabulary() -> tuple[dict[str, int], list[str], dict[str, int]]:
    """Vocabulary, merges and special tokens: a byte is a token, and so are `FRAME_WORDS`."""
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for word in FRAME_WORDS:
        for i in range(2, len(word) + 1):
            merges.append(f"{word[: i - 1]} {word[i - 1]}")
            vocab.setdefault(word[:i], len(vocab))
    return vocab, merges, {token: len(vocab) + i for i, token in enumerate(SPECIAL)}


def byte_text_ids() -> TextIds:
    """The ids of `byte_vocabulary`."""
    vocab, _, special = byte_vocabulary()
    _, start, end, pad, bos, eos = (special[token] for token in SPECIAL)
    return TextIds(len(vocab) + len(special), start, end, vocab["assistant"], pad, bos, eos)


def save_byte_text(directory: Path) -> None:
    """Write `vocab.json`, `merges.txt` and `tokenizer_config.json` of `byte_vocabulary`."""
    vocab, merges, special = byte_vocabulary()
    added: dict[str, Any] = {
        str(i): {"content": token, "special": True, "lstrip": False, "rstrip": False,
                 "normalized": False, "single_word": False}
        for token, i in special.items()
    }  # fmt: skip
    for name, data in (
        ("vocab.json", vocab),
        ("tokenizer_config.json", {"added_tokens_decoder": added}),
    ):
        text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
        (directory / name).write_text(text, encoding="utf-8")
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
