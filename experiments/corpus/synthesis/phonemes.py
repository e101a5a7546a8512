"""Text to the phoneme ids that the two synthesisers take, by espeak-ng inside their packages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from experiments.corpus.synthesis.word_anchors import Anchor, anchors_of, groups_of

# Kokoro takes at most 510 ids.
LONGEST = 500

_KOKORO_BREAKS = ' ;:,.!?\u2014\u2026"()\u201c\u201d'

# Letters that are spelled, two or more in a row: espeak would read "A" as the article.
_SPELLED = re.compile(r"(?<![A-Za-z'])[A-Z](?:[ -][A-Z])+(?![A-Za-z])")


def letters_as_words(text: str) -> str:
    """`text` with the letters A and I of spelled runs as words that sound like their names."""
    return _SPELLED.sub(lambda run: run[0].replace("A", "eigh").replace("I", "eye"), text)


class KokoroPhonemes:
    """Phonemes of American (`en-us`) or British (`en-gb`) English as Kokoro-82M numbers them."""

    def __init__(self) -> None:
        from kokoro_onnx.tokenizer import Tokenizer

        self.vocabulary: dict[str, int] = Tokenizer().vocab
        marks = [mark for mark in _KOKORO_BREAKS if mark in self.vocabulary]
        self._breaks = frozenset(self.vocabulary[mark] for mark in marks)

    def __call__(self, texts: Sequence[str], accent: str) -> list[list[int]]:
        import phonemizer

        lines = phonemizer.phonemize(
            [letters_as_words(text) for text in texts],
            accent,
            preserve_punctuation=True,
            with_stress=True,
        )
        known = [[p for p in line.strip() if p in self.vocabulary] for line in lines]
        return [[self.vocabulary[p] for p in line] for line in known]

    def anchors(self, text: str, tokens: Sequence[int]) -> list[Anchor]:
        """Where the words of a text begin and end among its phoneme ids (`anchors_of`).

        Marks of stress take time of their own and come first in their word: they count.
        """
        return anchors_of(text, groups_of(tokens, frozenset(), self._breaks))


class PiperPhonemes:
    """Phonemes as the Piper voice `piper.onnx` beside `piper.json` numbers them."""

    def __init__(self, models: Path) -> None:
        from piper import PiperVoice

        self.voice = PiperVoice.load(models / "piper.onnx", models / "piper.json")
        ids = self.voice.config.phoneme_id_map
        self._silent = frozenset(i for mark in "_^$" for i in ids[mark])
        self._breaks = frozenset(i for mark in " ,.;:?!-'\"()" for i in ids.get(mark, ()))

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        found = []
        for text in texts:
            parts = self.voice.phonemize(letters_as_words(text))
            joined = [p for part in parts for p in [*part, " "]][:-1]
            found.append(self.voice.phonemes_to_ids(joined))
        return found

    def anchors(self, text: str, tokens: Sequence[int]) -> list[Anchor]:
        """Where the words of a text begin and end among its phoneme ids (`anchors_of`)."""
        return anchors_of(text, groups_of(tokens, self._silent, self._breaks))
