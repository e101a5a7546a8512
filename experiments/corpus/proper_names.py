"""Proper names of people, places and companies, from packages: tables for everyday sentences."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from experiments.corpus.split import digest

# Locales of Faker with names in Latin letters that are read in English text.
LOCALES = (
    "en_US", "en_GB", "en_IN", "en_KE", "en_NG", "en_NZ", "en_PK", "ga_IE", "no_NO", "sv_SE",
    "de_DE", "de_AT", "fr_FR", "es_ES", "es_MX", "es_CO", "pl_PL", "pt_BR", "pt_PT", "tr_TR",
    "is_IS", "fi_FI", "nl_NL", "cs_CZ", "da_DK", "hu_HU", "ro_RO", "hr_HR", "et_EE", "yo_NG",
    "zu_ZA", "id_ID", "tw_GH", "sw",
)  # fmt: skip
# English names are drawn more often than those of another locale.
FREQUENT = {"en_US": 8, "en_GB": 5, "en_IN": 3, "ga_IE": 2, "es_ES": 2, "fr_FR": 2}
_NAME = re.compile(r"[A-Z][A-Za-z]+(?:['-][A-Z]?[a-z]+)?(?: [A-Z][a-z]+)?")
_PLACE, _PERSON = "15", "18"


@dataclass(frozen=True)
class Names:
    """Names in the order of their hash, without those that are held out.

    Attributes:
        first, last: of people, by locale.
        places: cities, countries, rivers, mountains.
        known: full names of historical people.
        words: capitalised words of every kind (brands, peoples, places, surnames).
    """

    first: dict[str, list[str]]
    last: dict[str, list[str]]
    places: list[str]
    known: list[str]
    words: list[str]


def read_names(unpacked: Path, held_out: frozenset[str] = frozenset()) -> Names:
    """The tables of the packages `faker`, `wordnet-base` and `wamerican-large` under `unpacked`.

    Args:
        held_out: words in small letters; no name that has one of them is in a table.
    """

    def kept(names: Iterator[str] | set[str]) -> list[str]:
        chosen = {
            name
            for name in names
            if _NAME.fullmatch(name) and not held_out & set(re.findall("[a-z]+", name.lower()))
        }
        return sorted(chosen, key=lambda name: digest(f"name {name}"))

    first, last = {}, {}
    for locale in LOCALES:
        given, family = _of_locale(unpacked / "faker/faker/providers/person" / locale)
        if kept(given) and kept(family):
            first[locale], last[locale] = kept(given), kept(family)
    return Names(
        first,
        last,
        kept(_wordnet(unpacked, _PLACE)),
        kept(name for name in _wordnet(unpacked, _PERSON) if " " in name),
        kept(
            set(_words(unpacked / "wamerican-large/usr/share/dict/american-english-large"))
            - _disparaging(unpacked)
        ),
    )


def _of_locale(folder: Path) -> tuple[set[str], set[str]]:
    """First and last names in the class attributes of a provider of Faker; its code is not run."""
    given: set[str] = set()
    family: set[str] = set()
    for node in ast.walk(ast.parse((folder / "__init__.py").read_text("utf-8"))):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        attribute = node.targets[0].id
        strings = {
            each.value
            for each in ast.walk(node.value)
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        }
        if attribute.startswith("first_name"):
            given |= strings
        elif attribute.startswith("last_name"):
            family |= strings
    return given, family


def _wordnet(unpacked: Path, file_number: str) -> Iterator[str]:
    """Instances (of places, of people) among the nouns of a lexicographer file of WordNet."""
    text = (unpacked / "wordnet-base/usr/share/wordnet/data.noun").read_text("utf-8")
    for line in text.splitlines():
        fields = line.split(" ")
        if line.startswith(" ") or fields[1] != file_number or " @i " not in line:
            continue
        for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]:
            yield word.replace("_", " ")


def _words(file: Path) -> Iterator[str]:
    """Capitalised words of a word list that are no plural or possessive of another."""
    words = set(file.read_text("utf-8").split())
    for word in words:
        plural = word.endswith("s") and word[:-1] in words
        if re.fullmatch("[A-Z][a-z]{2,11}", word) and word.lower() not in words and not plural:
            yield word


def _disparaging(unpacked: Path) -> set[str]:
    """Words that WordNet calls offensive."""
    lines = (unpacked / "wordnet-base/usr/share/wordnet/data.noun").read_text("utf-8").splitlines()
    marked = [line for line in lines if re.search("offensive|slur|disparag|derogat|insult", line)]
    return {word for line in marked for word in re.findall("[A-Z][a-z]+", line.split(" | ")[0])}
