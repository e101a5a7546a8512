"""Library of the nano recipe: a small byte-pair vocabulary and its special tokens.

A model of a few million parameters cannot hold tables for a vocabulary of 150,000, and letters are
what it learns pronunciation from. But English is spoken at more letters a second than a 12.5 Hz
talker has frames: where the text comes one token beside each frame, bytes alone would be late, and
merges of a few letters each keep it ahead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from experiments import command
from qtts_jax.text.bpe import byte_words

Merge = tuple[str, str]

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tts_pad>", "<tts_text_bos>",
           "<tts_text_eod>")  # fmt: skip
# The official prompt is sliced by token positions, so each of these must be a single token.
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


def learn_merges(texts: Iterable[str], count: int, letters: int) -> list[Merge]:
    """The merges that byte-pair encoding learns from texts, the most frequent first.

    Args:
        count: the largest number of merges.
        letters: bytes of the longest token, a space before a word included.
    """
    tokenizer = Tokenizer(models.BPE())
    # The normalization and word split of `TextTokenizer`.
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFC(), byte_words()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + count,
        initial_alphabet=alphabet,
        max_token_length=letters + 1,  # the library wants tokens to be shorter than this
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(first, second) for first, second in found]


def text_vocabulary(
    merges: Sequence[Merge] = (),
) -> tuple[dict[str, int], list[str], dict[str, int]]:
    """Vocabulary, merges and special tokens: bytes, `FRAME_WORDS`, and what `merges` join."""
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    frame = [(word[: i - 1], word[i - 1]) for word in FRAME_WORDS for i in range(2, len(word) + 1)]
    pairs = list(dict.fromkeys([*frame, *merges]))
    for pair in pairs:
        vocab.setdefault("".join(pair), len(vocab))
    special = {token: len(vocab) + i for i, token in enumerate(SPECIAL)}
    return vocab, [" ".join(pair) for pair in pairs], special


def text_ids(merges: Sequence[Merge] = ()) -> TextIds:
    """The ids of `text_vocabulary`."""
    vocab, _, special = text_vocabulary(merges)
    _, start, end, pad, bos, eos = (special[token] for token in SPECIAL)
    return TextIds(len(vocab) + len(special), start, end, vocab["assistant"], pad, bos, eos)


def save_text(directory: Path, merges: Sequence[Merge] = ()) -> None:
    """Write `vocab.json`, `merges.txt` and `tokenizer_config.json` of `text_vocabulary`."""
    vocab, joined, special = text_vocabulary(merges)
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
    (directory / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *joined]) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.train.talker"))
