"""One row of the text front end: a pattern, what is spoken in its place, and examples."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Replacement = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True)
class Rule:
    """A rewriting rule of English text.

    Attributes:
        name: what the rule is about, unique among all rules.
        pattern: compiled expression; a match must be bounded in length, so that time is linear.
        spoken: template of `re.sub`, or a function of the match; it may return the match itself
            (`match[0]`) to leave it to later rules.
        examples: pairs (text, what the whole front end makes of it); the tests run each of them.
    """

    name: str
    pattern: re.Pattern[str]
    spoken: Replacement
    examples: tuple[tuple[str, str], ...]

    def apply(self, text: str) -> str:
        """The text with every match of the pattern replaced."""
        return self.pattern.sub(self.spoken, text)


def any_of(words: Iterable[str]) -> str:
    """A pattern that matches any of the words, the longest first."""
    return "(?:" + "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True)) + ")"
