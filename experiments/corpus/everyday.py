"""Everyday sentences as people write them: names, numbers, dates, money, letters, talk, lists.

Each kind is a list of templates, whose slots `Slots` fills: `{full}` is a person's name, `{n:2:90}`
a number from 2 to 90, `{plain}` a sentence of the reading list. `everyday` draws raw texts, and
`spoken_sentences` gives their spoken form, by the front end that will be before the talker: the
synthesiser speaks what the talker will read.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

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


KINDS: dict[str, tuple[str, ...]] = {
    "names": (
        "{full} called while you were out.",
        "I had lunch with {full} and {full} on {day}.",
        "{first} and {first} grew up in {place}.",
        "{full} was born in {place} and later lived in {place}.",
        "Is {full} the new {job}?",
        "{title} {last} will see you now.",
        "{title} {last} and {title} {last} have not replied.",
        "The {job}, {full}, comes from {place}.",
        "We named the cat {first} and the dog {first}.",
        "My {relative} {first} married {full} in {place}.",
        "They drove from {place} to {place} by way of {place}.",
        "The bus to {place} stops in {place}.",
        "{first} speaks better than {first} does.",
        "{word} opened a new store in {place}.",
        "The {last} family moved to {place}.",
        "{full} of {word} {firm} declined to comment.",
        "This song is by {full}.",
        "Have you read the book by {known}?",
        "{known} never went to {place}.",
        "The statue shows {known}.",
        "{first}, {first}, {first} and {first} are on the team.",
        "Please welcome {full} from {place}!",
        "{first}'s {relative} works for {word}.",
        "Tell {first} that {first} is waiting.",
        "Did {first} {last} really win against {first} {last}?",
        "Greetings from {place}!",
        "The road between {place} and {place} is closed.",
        "{last}, {last} and {last} are law partners.",
        "Nobody in {place} had ever heard of {full}.",
        "Our flight to {place} leaves from {place}.",
        "The mayor of {place} met the {job} {full}.",
        "A woman called {full} asked for you.",
        "{full}, {full} and {full} were elected.",
        "He said his name was {full}.",
        "She introduced herself as {full}.",
        "The letter is addressed to {full}, {place}.",
        "{last} passes to {last}, {last} shoots, and {last} saves!",
        "It was painted by {full} in {place}.",
        "{first} is {n:18:95} and lives with {first}.",
        "{word}, {word} and {word} are all in the index.",
        "I confused {word} with {word}.",
        "What does the name {word} mean?",
        "Maps of {place}, {place} and {place} hang on the wall.",
        "As {full} once wrote, {lower}",
        "According to {full}, {lower}",
        "“{plain}” {verb} {first}.",
        "{first} {last} {verb}, “{plain}”",
        "Dear {first}, thank you for the photos of {place}.",
        "{full} will be your guide in {place}.",
        "St. {first}'s is the oldest church in {place}.",
        "{initial}. {initial}. {last} lived near {place}.",
        "{first} {initial}. {last} signed the contract.",
        "The {place} office belongs to {title} {last}.",
        "{first} told {first} about {first}'s trip to {place}.",
        "Best wishes, {first} {last}.",
        *["{story}"] * 14,
        "{place}, {place}, {place}, {place}.",
        "{first}, {first}, {first}, {first}, {first}.",
        "{last}, {first}.",
    ),
    "letters": (
        "The {acronym} called about the {acronym}.",
        "Does the {acronym} know about this?",
        "I work for the {acronym} in {place}.",
        "He left the {acronym} to join {word}.",
        "Connect the {acronym} port to the {thing}.",
        "Spell it {spelled}.",
        "My name is {last}, {spelled}.",
        "The code is {spelled}.",
        "Gate {letter}, row {n:1:40}, seat {letter}.",
        "The {acronym} and the {acronym} signed an agreement.",
        "Is that an {acronym} or a {acronym}?",
        "An {acronym} file is not a {acronym}.",
        "The {acronym} announced new rules for the {acronym} on {day}.",
        "You need an {acronym}, a {acronym} and two {acronym}s.",
        "Vitamin {letter} and vitamin {letter}{n:2:12} are good for you.",
        "She got an {letter} in maths and a {letter} in art.",
        "Plan {letter} failed, so we tried plan {letter}.",
        "Flight {letter}{letter}{n:100:999} to {place} is boarding.",
        "License plate {letter}{letter}{letter} {n:100:999}.",
        "He drives a {word} {letter}{n:2:9}.",
        "Press {acronym} to see the menu.",
        "{acronym}, {acronym} and {acronym} are short for longer words.",
        "The {acronym}'s report says that {lower}",
        "The {acronym} bought {word} for ${n:2:90} million.",
        "Do you have an {acronym}?",
        "{full}, the {acronym}'s director, spoke to the {acronym}.",
        "My {acronym} is broken.",
        "Turn off the {acronym} before you go.",
        "Where is the {acronym} department?",
        "Write {spelled} on the box.",
        "Please sign the {acronym} form by {day}.",
        "The {relative} of the {acronym} chief is a {job}.",
    ),
    "numbers": (
        "There were {n:2:99} {thing}s in {n:2:30} boxes.",
        "Only {n:2:20} of the {n:21:400} seats were taken.",
        "{big} people live in {place}.",
        "The company sold {big} {thing}s last year.",
        "She came {ordinal} in the {ordinal} race.",
        "That is {n:1:99}.{n:1:99}, not {n:1:99}.",
        "Turn to page {n:2:900} and read chapter {n:2:40}.",
        "My phone number is {phone}.",
        "Dial {phone} for the {job}.",
        "Our address is {n:2:9999} {last} {street}, {place}.",
        "Send it to {n:10:900} {first} {street}, apartment {n:1:60}{letter}.",
        "Room {n:100:999} is on the {ordinal} floor.",
        "Bus {n:2:180} stops at platform {n:1:30}.",
        "He scored {n:2:60} points in {n:2:40} minutes.",
        "The final score was {n:1:9}-{n:0:8}.",
        "It is {n:1:40} degrees below zero in {place}.",
        "Order number {n:1000:99999} is ready.",
        "Your PIN is not {n:1000:9999}.",
        "Mix {n:1:4}/{n:5:9} of the flour with {n:2:9} eggs.",
        "We counted {n:2:99}, then {n:100:999}, then {big}.",
        "{n:2:12} times {n:2:12} makes {n:4:144}.",
        "{n:2:80} plus {n:2:80} is {n:4:160}.",
        "I would rate it {n:1:10} out of 10.",
        "About {n:5:95}% of the votes went to {full}.",
        "Prices went up by {n:1:19}.{n:1:9}% in {month}.",
        "Lesson {n:1:40} has {n:3:90} exercises.",
        "The class has {n:10:40} pupils between {n:5:9} and {n:10:14}.",
        "Read verses {n:1:20}-{n:21:50} aloud.",
        "{big} minus {n:2:99} is a lot.",
        "Take highway {n:1:400} to exit {n:1:90}.",
        "{n:1:9}, {n:1:9}, {n:1:9}, {n:1:9}.",
        "{n:10:99}, {n:10:99}, {n:100:999}.",
        "Volume {n:2:30}, number {n:2:60}.",
        "He weighs {n:40:140} kg and is {n:140:210} cm tall.",
    ),
    "dates": (
        "We moved to {place} on {date}.",
        "{full} was born on {date}.",
        "The contract ends on {date}.",
        "From {year} to {year} he lived in {place}.",
        "In {year} the {job} left {place}.",
        "Is the party on {day}, {date}?",
        "The {decade}s were a time of change.",
        "They met in the '{n:2:9}0s.",
        "Nothing has changed since {month} {year}.",
        "The next meeting is on the {ordinal} of {month}.",
        "{month} {n:1:30} is a {day}.",
        "School starts on {date} and ends on {date}.",
        "See you on {day}!",
        "Winter came early in {year}.",
        "Every {day} and {day} we go swimming.",
        "The law of {date} is still in force.",
        "He turned {n:2:99} on {day}.",
        "{known} visited {place} in {year}.",
    ),
    "times": (
        "The {thing} shop closes at {time}.",
        "Lunch is from {time} to {time}.",
        "Meet {first} at {time} in front of the {word} building.",
        "Set the alarm for {time}.",
        "It is {time}, and {first} is still asleep.",
        "The train to {place} leaves at {time} from track {n:1:20}.",
        "Can we talk at {time} on {day}?",
        "We waited from {time} until {time}.",
        "At {time} the phone rang.",
        "Doors open at {time}.",
        "The film lasts {n:1:3} hours and {n:2:59} minutes.",
        "He ran it in {n:2:9}:{n:10:59}.",
        "I slept for {n:2:12} hours.",
        "The news is on at {time}.",
    ),
    "money": (
        "The {thing} costs {money}.",
        "I paid {money} for a {thing} and {money} for the {food}.",
        "{first} owes me {money}.",
        "Tickets are {money} for adults and {money} for children.",
        "The {acronym} spent {money} on {thing}s.",
        "{word} lost ${n:2:90} billion in {year}.",
        "Could I borrow {money} until {day}?",
        "Rent is {money} a month.",
        "That is {money} too much.",
        "He earns {money} a week as a {job}.",
        "They sold the {thing} for {money}.",
        "Delivery costs {money} extra.",
        "The bill came to {money}.",
        "A {thing} for {money}? No, thank you.",
        "We raised {money} for the {word} school.",
    ),
    "units": (
        "The {thing} weighs {measure}.",
        "It is {measure} from {place} to {place}.",
        "Add {measure} of {food} and {measure} of {food}.",
        "The {thing} is {measure} long and {measure} wide.",
        "Keep it at {n:2:99}°C.",
        "It was {n:60:110}°F in {place}.",
        "The file is {n:2:900} MB.",
        "He drove at {n:20:150} mph.",
        "The wind blows at {n:10:120} km/h.",
        "Drink {measure} of water.",
        "The bridge is {big} ft long.",
        "We walked {n:2:30} miles in {n:2:9} hours.",
        "Her bag weighs {n:2:30}.{n:1:9} kg.",
        "The screen measures {n:10:80} inches.",
        "Heat the oven to {n:150:450}°.",
    ),
    "talk": (
        "Are you {adjective}?",
        "Why is the {thing} so {adjective}?",
        "Where did {first} put the {thing}?",
        "Who took my {thing}?",
        "How many {thing}s do we need?",
        "When does the {job} arrive?",
        "What a {adjective} {thing}!",
        "Isn't that the {adjective} {job} from {place}?",
        "Do you want the {thing} or the {thing}?",
        "Could you hand me the {thing}, please?",
        "Would you like some {food} with your {food}?",
        "Have you seen my {adjective} {thing}?",
        "“Where is the {thing}?” {verb} {first}. “In the {thing},” {verb} {first}.",
        "“{plain}” – “Really?” – “Yes, really.”",
        "“Be {adjective},” {verb} the {job}.",
        "The {job} {verb}, “{plain}”",
        "“I don't know,” {first} {verb}, “but I'll find out.”",
        "“No!” {verb} {first}. “That's my {thing}!”",
        "She said “{adjective}” twice.",
        "They call it “{adjective}”, but it is only {adjective}.",
        "Well… maybe the {thing} is {adjective}.",
        "The {thing} – the {adjective} one – is mine.",
        "The {thing} (the {adjective} one) is gone.",
        "Thank you, {first}!",
        "Hello, {first}. How was {place}?",
        "Sorry, I'm late.",
        "Stop it, {first}!",
        "You don't have to be {adjective}.",
        "I can't believe it’s so {adjective}!",
        "We'd better take the {thing}, hadn't we?",
        "It's {adjective}, isn't it?",
        "Good morning, {title} {last}.",
        "Don't forget the {food}.",
        "What's the {adjective} {job} doing with that {thing}?",
        "Which {thing} is {adjective}: this one or that one?",
        "Yes.",
        "No, thanks.",
        "Okay, let's go.",
        "I'm {adjective}, and you're {adjective}.",
        "If it's {adjective}, we'll stay; if not, we'll leave.",
        "He isn't {adjective}, he's just {adjective}.",
        "DON'T TOUCH THE {THING}!",
        "PLEASE BE {ADJECTIVE}!",
        "I am REALLY {adjective}.",
        "Whose {thing} is this, {first}'s or yours?",
        "Who's that?",
    ),
    "lists": (
        "You need:\n- {food}\n- {food}\n- {food}",
        "Shopping list:\n• {food}\n• {n:2:12} {food}\n• {food}",
        "1. {Task}.\n2. {Task}.\n3. {Task}.",
        "To do today:\n- {task}\n- {task}",
        "We bought {food}, {food}, {food} and {food}.",
        "Bring a {thing}, a {thing}, and a {adjective} {thing}.",
        "{day}: {task}. {day}: {task}.",
        "First, {task}; second, {task}; third, {task}.",
        "The {job}, the {job}, the {job} and the {job} agreed.",
        "{Food}, {food}, {food}.",
        "* {task}\n* {task}\n* {task}",
        "It was {adjective}, {adjective} and {adjective}.",
    ),
    "addresses": (
        "Open {file} in the editor.",
        "I saved it as {file}.",
        "Send {file} to {email}.",
        "My e-mail address is {email}.",
        "Visit {url} for more.",
        "You can find it on {url}.",
        "{file} and {file} are missing.",
        "Rename {file} to {file}.",
        "Is {file} too large?",
        "Click on {file}, then on {url}.",
        "Follow @{handle} for news from {place}.",
        "Tag it #{Handle}.",
        "The {acronym} wants {file} by {day}.",
    ),
}

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
