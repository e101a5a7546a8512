"""Telephone numbers, digit by digit with a pause between groups."""

import re

from qtts_jax.text.spoken.number_words import digits
from qtts_jax.text.spoken.rule import Rule


def _groups(text: str) -> str:
    plus = "plus " if text.lstrip().startswith("+") else ""
    return plus + ", ".join(digits(group) for group in re.findall(r"\d+", text))


RULES = (
    Rule(
        "international number",
        re.compile(r"(?<![\w+])\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,5}(?![\w-])"),
        lambda m: _groups(m[0]),
        (
            (
                "Ring +44 20 7946 0958.",
                "Ring plus four four, two zero, seven nine four six, zero nine five eight.",
            ),
        ),
    ),
    Rule(
        "American number",
        re.compile(r"(?<![\w.-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])"),
        lambda m: _groups(m[0]),
        (
            (
                "Call (212) 555-0147.",
                "Call two one two, five five five, zero one four seven.",
            ),
        ),
    ),
    Rule(
        "local number",
        re.compile(r"(?<![\w.,-])\d{3}-\d{4}(?![\w-])"),
        lambda m: _groups(m[0]),
        (("Dial 555-0199 now.", "Dial five five five, zero one nine nine now."),),
    ),
    Rule(
        "grouped number",
        re.compile(r"(?<![\w.,-])0\d{2,4}[ -]\d{3,4}(?:[ -]?\d{3,4})?(?![\w-])"),
        lambda m: _groups(m[0]),
        (("0800 123 456", "zero eight zero zero, one two three, four five six"),),
    ),
    Rule(
        "short number",
        re.compile(r"(?i:\b(call|dial|ring|called|dialed|phone) )(\d{3})(?![\w.,:-]\w|\w| [a-z])"),
        lambda m: f"{m[1]} {digits(m[2])}",
        (("Call 112!", "Call one one two!"),),
    ),
    Rule(
        "emergency number",
        re.compile(r"(?<![\w.,:/$£€-])911(?![\w%]|[.,:/-]\d)"),
        lambda m: digits(m[0]),
        (("for 911 only", "for nine one one only"),),
    ),
    Rule(
        "zip code",
        re.compile(r"(?<=\b[A-Z]{2} |[A-Z]\. )(\d{5})(?:-(\d{4}))?(?![\w-]|[.,]\d)"),
        lambda m: digits(m[1]) + (f", {digits(m[2])}" if m[2] else ""),
        (("NY 10001", "N Y one zero zero zero one"),),
    ),
    Rule(
        "groups of four digits",
        re.compile(r"(?<![\w.,-])\d{4}([ -])\d{4}(?:\1\d{4}){1,3}(?![\w-])"),
        lambda m: _groups(m[0]),
        (
            (
                "4111 1111 1111",
                "four one one one, one one one one, one one one one",
            ),
        ),
    ),
    Rule(
        "digits after a label",
        re.compile(
            r"\b((?i:pin|code|zip|serial|account|id|passcode|password)"
            r"(?: (?:number|code|is|no\.?)){0,2}:? )(\d{3,8})(?![\w.,-]\w|\w)"
        ),
        lambda m: m[1] + digits(m[2]),
        (("The code is 4071.", "The code is four zero seven one."),),
    ),
)
