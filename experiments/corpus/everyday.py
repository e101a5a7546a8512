"""Everyday sentences as people write them: names, numbers, dates, money, letters, talk, lists.

Each kind is a list of templates (`everyday_templates.py`), whose slots `Slots` fills: `{full}` is a
person's name, `{n:2:90}` a number from 2 to 90, `{plain}` a sentence of the reading list.
`everyday` draws raw texts, and `spoken_sentences` gives their spoken form, by the front end that
will be before the talker: the synthesiser speaks what the talker will read.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

from experiments.corpus.everyday_templates import KINDS
from experiments.corpus.proper_names import FREQUENT, Names
from experiments.corpus.sentences import Sentence
from experiments.corpus.split import digest
from experiments.corpus.word_lists import (
    ACRONYMS,
    ADJECTIVES,
    DAYS,
    ENDINGS,
    FIRMS,
    FOODS,
    JOBS,
    MONTHS,
    RELATIVES,
    SITES,
    STEMS,
    STREETS,
    TASKS,
    THINGS,
    TITLES,
    UNITS,
    VERBS,
)
from qtts_jax.text.spoken import normalize

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_SUBJECT = re.compile(r"(He|She|They)(?= [a-z])")


class Slots:
    """Fills the slots of templates with a random generator of its own.

    Args:
        names: tables of proper names.
        plain: sentences of the reading list, for quotations and paragraphs.
    """

    def __init__(self, names: Names, plain: Sequence[str], seed: int) -> None:
        self._names, self._plain, self._rng = names, plain, random.Random(seed)
        locales = list(names.first)
        self._locales = [each for each in locales for _ in range(FREQUENT.get(each, 1))]
        self._stories = [text for text in plain if _SUBJECT.match(text)]
        self._makers: dict[str, Callable[[], str]] = {
            "first": self._first,
            "last": self._last,
            "full": self._full,
            "place": lambda: self._pick(names.places),
            "known": lambda: self._pick(names.known),
            "word": lambda: self._pick(names.words),
            "letter": lambda: self._pick(LETTERS),
            "initial": lambda: self._pick(LETTERS),
            "acronym": self._acronym,
            "spelled": lambda: "-".join(self._pick(LETTERS) for _ in range(self._number(3, 6))),
            "title": lambda: self._pick(TITLES),
            "day": lambda: self._pick(DAYS),
            "month": lambda: self._pick(MONTHS),
            "date": self._date,
            "year": self._year,
            "decade": lambda: self._year()[:3] + "0",
            "time": self._time,
            "money": self._money,
            "measure": lambda: f"{self._amount()} {self._pick(UNITS)}",
            "big": lambda: f"{self._number(1, 10 ** self._number(4, 8)):,}",
            "ordinal": self._ordinal,
            "phone": self._phone,
            "street": lambda: self._pick(STREETS),
            "firm": lambda: self._pick(FIRMS),
            "thing": lambda: self._pick(THINGS),
            "food": lambda: self._pick(FOODS),
            "Food": lambda: self._pick(FOODS).capitalize(),
            "task": lambda: self._pick(TASKS),
            "Task": lambda: self._pick(TASKS).capitalize(),
            "job": lambda: self._pick(JOBS),
            "adjective": lambda: self._pick(ADJECTIVES),
            "THING": lambda: self._pick(THINGS).upper(),
            "ADJECTIVE": lambda: self._pick(ADJECTIVES).upper(),
            "relative": lambda: self._pick(RELATIVES),
            "verb": lambda: self._pick(VERBS),
            "file": self._file,
            "email": lambda: f"{self._first().lower()}@{self._site()}",
            "url": lambda: self._pick(("www.", "https://", "")) + self._site() + self._path(),
            "handle": lambda: self._pick(THINGS) + self._pick(FOODS),
            "Handle": lambda: self._pick(ADJECTIVES).capitalize() + self._pick(FOODS).capitalize(),
            "plain": lambda: self._pick(self._plain),
            "story": self._story,
            "lower": self._lower,
        }

    def fill(self, template: str) -> str:
        """`template` with every slot filled."""

        def value(match: re.Match[str]) -> str:
            name, *bounds = match[1].split(":")
            if name == "n":
                return str(self._number(int(bounds[0]), int(bounds[1])))
            return self._makers[name]()

        return re.sub(r"\{([^{}]+)\}", value, template)

    def sentence(self, kind: str) -> str:
        """A raw sentence of a kind."""
        return self.fill(self._pick(KINDS[kind]))

    def paragraph(self, longest: int) -> str:
        """Sentences of mixed kinds, up to about `longest` characters of them."""
        sentences: list[str] = []
        goal = self._number(150, longest)
        for _ in range(12):
            if sum(map(len, sentences)) >= goal:
                break
            mixed = self._pick(("plain", "plain", "names", "numbers", "dates", "times", "money",
                                "units", "talk", "talk", "letters"))  # fmt: skip
            text = self.fill("{plain}") if mixed == "plain" else self.sentence(mixed)
            if sum(map(len, sentences)) + len(text) <= longest:
                sentences.append(text)
        return " ".join(sentences)

    def _pick(self, options: Sequence[str]) -> str:
        return options[int(self._rng.random() * len(options))]

    def _number(self, low: int, high: int) -> int:
        return low + int(self._rng.random() * (high - low + 1))

    def _first(self) -> str:
        return self._pick(self._names.first[self._pick(self._locales)])

    def _last(self) -> str:
        return self._pick(self._names.last[self._pick(self._locales)])

    def _full(self) -> str:
        locale = self._pick(self._locales)
        return f"{self._pick(self._names.first[locale])} {self._pick(self._names.last[locale])}"

    def _acronym(self) -> str:
        if self._rng.random() < 0.4:
            return self._pick(ACRONYMS)
        # Four letters with a vowel could be a word.
        letters = "BCDFGHJKLMNPQRSTVWXZ" if self._rng.random() < 0.2 else LETTERS
        size = 4 if letters is not LETTERS else self._number(2, 3)
        return "".join(self._pick(letters) for _ in range(size))

    def _date(self) -> str:
        day, year = self._number(1, 28), self._year()
        month = self._pick(MONTHS)
        return self._pick((
            f"{month} {day}, {year}", f"{day} {month} {year}", f"{month} {day}",
            f"{month} {self._ordinal_of(day)}", f"{self._number(1, 12)}/{day}/{year}",
            f"{year}-{self._number(1, 12):02d}-{day:02d}", f"{month[:3]}. {day}",
        ))  # fmt: skip

    def _year(self) -> str:
        return str(self._number(*self._pick(((1900, 1999), (2000, 2030), (1500, 1899)))))

    def _time(self) -> str:
        hour, minute = self._number(1, 12), self._number(0, 59)
        return self._pick((
            f"{hour}:{minute:02d} {self._pick(('am', 'pm', 'p.m.', 'a.m.', 'AM', 'PM'))}",
            f"{hour} {self._pick(('am', 'pm', 'p.m.', 'a.m.'))}", f"{hour}:{minute:02d}",
            f"{self._number(0, 23)}:{minute:02d}", f"{hour}:00", f"{hour} o'clock",
        ))  # fmt: skip

    def _money(self) -> str:
        sign = self._pick("$$$£€")
        return sign + self._pick((
            str(self._number(2, 99)), f"{self._number(1, 99)}.{self._number(1, 99):02d}",
            f"{self._number(100, 99999):,}", f"{self._number(2, 90)} million",
            f"{self._number(100, 990)}",
        ))  # fmt: skip

    def _amount(self) -> str:
        return self._pick((
            str(self._number(2, 99)), str(self._number(100, 900)),
            f"{self._number(0, 30)}.{self._number(1, 9)}",
        ))  # fmt: skip

    def _ordinal(self) -> str:
        return self._ordinal_of(self._number(1, self._pick((10, 31, 100))))

    @staticmethod
    def _ordinal_of(n: int) -> str:
        ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
        return f"{n}{ending}"

    def _phone(self) -> str:
        area, middle, end = self._number(200, 999), self._number(200, 999), self._number(0, 9999)
        return self._pick((f"{middle}-{end:04d}", f"({area}) {middle}-{end:04d}",
                           f"{area}-{middle}-{end:04d}"))  # fmt: skip

    def _file(self) -> str:
        middle = self._pick(("", "", f"_v{self._number(1, 9)}", f"-{self._number(1, 99)}",
                             f"_{self._pick(STEMS)}"))  # fmt: skip
        return f"{self._pick(STEMS)}{middle}.{self._pick(ENDINGS)}"

    def _site(self) -> str:
        return f"{self._pick((self._pick(THINGS), self._last().lower()))}.{self._pick(SITES)}"

    def _path(self) -> str:
        return self._pick(("", "", f"/{self._pick(STEMS)}"))

    def _story(self) -> str:
        """A plain sentence about somebody, with a name in place of the pronoun."""
        text = self._pick(self._stories)
        who = self._pick(("{first}", "{full}", "{full}", "{title} {last}", "{known}"))
        if text.startswith("They"):
            who = self._pick(("{first} and {first}", "{full} and {full}"))
        return _SUBJECT.sub(lambda _: self.fill(who), text, count=1)

    def _lower(self) -> str:
        text = self._pick(self._plain)
        return text[0].lower() + text[1:]


def everyday(names: Names, plain: Sequence[str], seed: int = 0) -> Iterator[tuple[str, str]]:
    """Raw texts without end, each with its kind; `SHARES` says how many of each."""
    slots = Slots(names, plain, seed)
    chance = random.Random(seed + 1)
    kinds, weights = list(SHARES), list(SHARES.values())
    while True:
        kind = chance.choices(kinds, weights)[0]
        yield kind, slots.paragraph(LONGEST) if kind == "paragraphs" else slots.sentence(kind)


def spoken_sentences(
    names: Names, plain: Sequence[str], held_out: frozenset[int] = frozenset(), seed: int = 0
) -> Iterator[Sentence]:
    """The spoken forms of `everyday`, each once.

    Args:
        held_out: digests of texts that are for tests.
    """
    seen = set(held_out)
    for kind, raw in everyday(names, plain, seed):
        text = normalize(raw)
        key = digest(text)
        if key not in seen and _SPOKEN.fullmatch(text):
            seen.add(key)
            yield Sentence(text, f"everyday {kind}", "Apache-2.0, words of MIT and public lists")


# What a front end leaves: letters and the marks that are heard.
_SPOKEN = re.compile(r"[A-Za-z ,.;:?!'-]{3,}")
# Of the texts, by number; paragraphs are five times as long as the others.
SHARES = {
    "names": 34, "letters": 13, "numbers": 10, "dates": 6, "times": 5, "money": 5, "units": 5,
    "talk": 10, "lists": 3, "addresses": 3, "paragraphs": 10,
}  # fmt: skip
# Characters of a raw paragraph: its spoken form is up to twice as long, and what the synthesiser
# cannot speak at once is left out.
LONGEST = 330
