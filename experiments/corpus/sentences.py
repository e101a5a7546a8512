"""Texts of Debian packages, cleaned to plain English sentences of about 2 to 15 seconds."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.corpus.split import digest

# Read aloud English has about 15 characters a second.
SHORTEST, LONGEST = 30, 210
_QUOTES = str.maketrans({"‘": "'", "’": "'", "`": "'", "“": '"', "”": '"', "—": ", ", "–": "-"})
_PLAIN = re.compile(r"[A-Za-z ,.;:?!'-]+")
# Initials, abbreviations and acronyms, which voices read in different ways.
_UNCLEAR = re.compile(r"\b([A-Za-z]\.)|\b[A-Z]{2,}\b|\b(etc|esp|cf|viz|Mr|Mrs|Dr|St|vs|No)\.|--|''")
# Single quotation marks, as far as they cannot be the mark of a plural possessive.
_QUOTE_MARK = re.compile(r"(?<=\s)'(?=\w)|(?<=[^s\s])'(?=[\s,.;:?!])|(?<=[,.?!])'")
_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z\"'])")


@dataclass(frozen=True)
class Sentence:
    """One sentence to read, with the package and licence of its text."""

    text: str
    source: str
    licence: str


def clean(text: str) -> str | None:
    """`text` as one plain sentence that begins with a capital and ends with a mark, or None.

    None for what is too short or long, has digits, abbreviations or other characters, or is no
    sentence (fewer than five words).
    """
    text = " ".join(text.translate(_QUOTES).replace('"', "").split())
    text = re.sub(r"\s+([,.;:?!])", r"\1", text).strip(" ,;:-'")
    if not text or not _PLAIN.fullmatch(text) or _UNCLEAR.search(text):
        return None
    if text[-1] not in ".?!":
        text += "."
    text = re.sub(r"[.?!]{2,}$", lambda marks: marks.group()[0], text)
    text = text[0].upper() + text[1:]
    if not SHORTEST <= len(text) <= LONGEST or len(text.split()) < 5:
        return None
    return _QUOTE_MARK.sub("", text)


def split_sentences(text: str) -> list[str]:
    """A paragraph as its sentences."""
    return _END.split(" ".join(text.split()))


def wordnet(folder: Path) -> Iterator[str]:
    """Glosses and, quoted in them, example sentences of WordNet's data files."""
    for part in ("noun", "verb", "adj", "adv"):
        file = folder / "usr/share/wordnet" / f"data.{part}"
        for line in file.read_text("utf-8").splitlines():
            if line.startswith("  "):
                continue
            gloss = line.partition(" | ")[2]
            yield from re.findall(r'"([^"]+)"', gloss)
            definition = re.sub(r'"[^"]*"|\([^)]*\)', "", gloss).split(";")[0]
            if definition.count(" ") >= 6:
                yield definition


def gcide(folder: Path) -> Iterator[str]:
    """Definitions of the GNU dictionary of English: sentences of its indented paragraphs."""
    with gzip.open(
        folder / "usr/share/dictd/gcide.dict.dz", "rt", encoding="utf-8", errors="replace"
    ) as file:
        entry = file.read()
    entry = re.sub(r"\[[^\]]*\]|\([^)]*\)|\{|\}|^\s+\d+\.", " ", entry, flags=re.MULTILINE)
    for paragraph in entry.split("\n\n"):
        lines = [line for line in paragraph.split("\n") if line.startswith("   ")]
        for sentence in split_sentences(" ".join(lines)):
            if "--" not in sentence:
                yield sentence


def jargon(folder: Path) -> Iterator[str]:
    """Prose of the Jargon File."""
    with gzip.open(folder / "usr/share/doc/jargon-text/jargon.txt.gz", "rt", errors="replace") as f:
        text = f.read()
    for paragraph in text.split("\n\n"):
        yield from split_sentences(paragraph)


# Files of plain prose; jokes about groups of people, verse and pictures are left out.
_FORTUNES = (
    "art", "computers", "education", "food", "humorists", "kids", "law", "linux", "literature",
    "love", "medicine", "miscellaneous", "news", "people", "pets", "platitudes", "riddles",
    "science", "sports", "startrek", "tao", "wisdom", "work",
)  # fmt: skip


def fortunes(folder: Path) -> Iterator[str]:
    """Sentences of the fortune files that hold prose."""
    for name in _FORTUNES:
        file = folder / "usr/share/games/fortunes" / name
        if not file.exists():
            continue
        for cookie in file.read_text("utf-8", errors="replace").split("\n%\n"):
            yield from split_sentences(re.split(r"\n\s*--", cookie)[0])


READERS = {
    "wordnet-base": (wordnet, "WordNet-3.0"),
    "jargon-text": (jargon, "public domain"),
    "fortunes": (fortunes, "BSD-3-clause collection of quotations"),
    "dict-gcide": (gcide, "GPL-2.0-or-later"),
}


def read_sentences(package: str, folder: Path) -> list[Sentence]:
    """All clean sentences of an unpacked package, without doubles, in the order of their hash."""
    reader, licence = READERS[package]
    return unique(
        Sentence(text, package, licence) for raw in reader(folder) if (text := clean(raw))
    )


def unique(sentences: Iterable[Sentence]) -> list[Sentence]:
    """The sentences without doubles, shuffled by their hash: the same order on every machine."""
    return [first for _, first in sorted({digest(s.text): s for s in sentences}.items())]


def reading_list(unpacked: Path) -> list[Sentence]:
    """The sentences of all packages under `unpacked`, dealt out in turn, without doubles.

    Half are of WordNet while the smaller sources last.
    """
    piles = {package: iter(read_sentences(package, unpacked / package)) for package in READERS}
    order = [
        "wordnet-base",
        "fortunes",
        "wordnet-base",
        "dict-gcide",
        "wordnet-base",
        "jargon-text",
    ]
    dealt: dict[int, Sentence] = {}
    while piles:
        for package in order:
            if package not in piles:
                continue
            sentence = next(piles[package], None)
            if sentence is None:
                del piles[package]
            else:
                dealt.setdefault(digest(sentence.text), sentence)
    return list(dealt.values())
