"""Symbols between words, and the last tidying: only letters and plain marks are left."""

import re
import unicodedata

from qtts_jax.text.spoken.rule import Rule

_SYMBOLS = {
    "&": "and", "+": "plus", "=": "equals", "@": "at", "%": "percent", "×": "times",
    "÷": "divided by", "°": "degrees", "²": "squared", "³": "cubed", "µ": "micro", "<": "less than",
    ">": "greater than", "±": "plus or minus", "≈": "about", "≤": "at most", "≥": "at least",
    "$": "dollars", "£": "pounds", "€": "euros", "¢": "cents", "¥": "yen", "₹": "rupees",
}  # fmt: skip
_ALTERNATIVES = "he/she|she/he|his/her|him/her|s/he|yes/no|either/or"


def _keep(match: re.Match[str]) -> str:
    """Letters of other scripts stay; emoji and all other characters become a blank."""
    return match[0] if unicodedata.category(match[0])[0] in "LMN" else " "


BETWEEN = (
    Rule(
        "comparison",
        re.compile(r"<=|>="),
        lambda m: "≤" if m[0] == "<=" else "≥",
        (("y <= 3", "y at most three"),),
    ),
    Rule(
        "alternatives",
        re.compile(rf"\b(?:{_ALTERNATIVES})\b", re.IGNORECASE),
        lambda m: m[0].replace("/", " or ") if m[0].lower() != "either/or" else "either or",
        (("he/she can", "he or she can"),),
    ),
    Rule(
        "symbol",
        re.compile(r" ?([&+=@%×÷°²³µ<>±≈≤≥$£€¢¥₹]) ?"),
        lambda m: f" {_SYMBOLS[m[1]]} ",
        (("salt & pepper", "salt and pepper"), ("C++", "C plus plus"), ("me@home", "me at home")),
    ),
)
TIDY = (
    Rule(
        "other characters",
        re.compile(r"[^A-Za-z0-9'.,:;!?\s-]"),
        _keep,
        (
            ("Nice 😀 day", "Nice day"),
            ('She said "yes" and left.', "She said yes and left."),
            ("and/or", "and or"),
        ),
    ),
    Rule(
        "loose hyphen", re.compile(r"(?<![A-Za-z])-+|-+(?![A-Za-z])|--+"), " ", (("a -b", "a b"),)
    ),
    Rule("blanks", re.compile(r"\s+"), " ", (("a  b", "a b"),)),
    Rule("blank before a mark", re.compile(r" +(?=[.,:;!?])"), "", (("yes , no", "yes, no"),)),
    Rule(
        "marks in a row",
        re.compile(r"[.,:;!?](?:[ .,:;!?]*[.,:;!?])"),
        lambda m: next(c for c in "?!.:;," if c in m[0]),
        (("What?!", "What?"), ("Yes,, no", "Yes, no"), ("the end.),", "the end.")),
    ),
    Rule(
        "no blank after a mark",
        re.compile(r"(?<=[.,:;!?])(?=[A-Za-z0-9])"),
        " ",
        (("one,two", "one, two"),),
    ),
    Rule("marks at the start", re.compile(r"\A[\s.,:;!?-]+"), "", ((", yes", "yes"),)),
)
