"""Numbers without a unit: rooms, years, ranges, fractions, ordinals, decimals, cardinals."""

import re

from qtts_jax.text.spoken.number_words import cardinal, decimal, digits, ordinal, pairs, year
from qtts_jax.text.spoken.rule import Rule, any_of

_PLACES = (
    "room", "flight", "suite", "apartment", "bus", "route", "highway", "gate", "channel", "train",
    "extension", "unit", "building", "line", "locker", "box", "interstate", "platform", "studio",
    "area", "boeing", "number", "order", "xbox", "office",
)  # fmt: skip
_STREETS = (
    "Street", "Avenue", "Road", "Lane", "Boulevard", "Drive", "Court", "Square", "Place", "Way",
    "Highway", "Terrace", "Crescent",
)  # fmt: skip
_FRACTIONS = {
    "2": ("half", "halves"), "3": ("third", "thirds"), "4": ("quarter", "quarters"),
    "5": ("fifth", "fifths"), "6": ("sixth", "sixths"), "7": ("seventh", "sevenths"),
    "8": ("eighth", "eighths"), "9": ("ninth", "ninths"), "16": ("sixteenth", "sixteenths"),
}  # fmt: skip
_WHOLE = r"(?:\d{1,3}(?:,\d{3}){1,10}|\d{1,400})"
_START = r"(?<![\w.,/:])"
_END = r"(?![\w]|[.,:/]\d)"
# A number of four digits after one of these words is a year.
_BEFORE_YEARS = (
    "in", "since", "of", "by", "from", "until", "till", "before", "after", "during", "year",
    "early", "late", "around", "about", "circa", "summer", "winter", "spring", "autumn", "fall",
    "In", "Since", "By", "From", "Until", "Before", "After", "During", "mid", "and", "to",
)  # fmt: skip
_OPERATIONS = {"+": "plus", "×": "times", "*": "times", "÷": "divided by", "=": "equals"}
_NOT_PLURAL = r"(?:was|is|has|as|this|his|its|does|us|always|across|towards|perhaps|sometimes)\b"


def _fraction(upper: str, lower: str) -> str:
    if lower == "1" or lower not in _FRACTIONS:
        return f"{cardinal(upper)} over {cardinal(lower)}"
    one, many = _FRACTIONS[lower]
    return f"{cardinal(upper)} {one if upper == '1' else many}"


def _mixed(match: re.Match[str]) -> str:
    whole, upper, lower = match.groups()
    if upper == "1" and lower in ("2", "4"):
        return f"{cardinal(whole)} and a {_FRACTIONS[lower][0]}"
    return f"{cardinal(whole)} and {_fraction(upper, lower)}"


def _slash(match: re.Match[str]) -> str:
    upper, lower = match[1], match[2]
    if int(lower) in (10, 20, 100) or int(upper) >= int(lower):
        return (
            f"{cardinal(upper)} out of {cardinal(lower)}"
            if int(upper) <= int(lower)
            else (f"{cardinal(upper)} over {cardinal(lower)}")
        )
    return _fraction(upper, lower)


def _four_digits(match: re.Match[str]) -> str:
    """A year, unless the number counts something ("1250 books")."""
    counted = re.match(rf" (?!{_NOT_PLURAL})(?:[a-z]{{2,}}s|people|children|men|women)\b",
                       match.string[match.end() :])  # fmt: skip
    before = re.search(r"([A-Za-z]+) $", match.string[max(0, match.start() - 20) : match.start()])
    if counted and not (before and before[1] in _BEFORE_YEARS[:10]):
        return cardinal(match[0])
    return year(match[0])


RULES = (
    Rule(
        "room, route or flight",
        re.compile(rf"\b((?i:{any_of(_PLACES)}) (?:number )?)([A-Z]{{0,2}}-?)(\d{{3,4}}){_END}"),
        lambda m: f"{m[1]}{m[2]}{pairs(m[3])}",
        (("room 204", "room two oh four"), ("Flight 815", "Flight eight fifteen")),
    ),
    Rule(
        "house number",
        re.compile(rf"{_START}(\d{{3,4}})(?= (?:[A-Z][\w.]{{1,20}} ){{1,3}}{any_of(_STREETS)}\b)"),
        lambda m: pairs(m[1]),
        (("at 742 Oak Street", "at seven forty-two Oak Street"),),
    ),
    Rule(
        "groups joined by hyphens",
        re.compile(r"(?<![\w-])\d{1,6}(?:-\d{1,7}){2,5}(?![\w-])"),
        lambda m: ", ".join(digits(group) for group in m[0].split("-")),
        (("123-45-6789", "one two three, four five, six seven eight nine"),),
    ),
    Rule(
        "blanks between thousands",
        re.compile(r"(?<![\w.,-])[1-9]\d{0,2}(?: \d{3}){0,3} 000(?![\w]|[.,:/]\d)"),
        lambda m: cardinal(m[0].replace(" ", "")),
        (("10 000 steps", "ten thousand steps"),),
    ),
    Rule(
        "range of ordinals",
        re.compile(r"(?<=\d(?:st|nd|rd|th)) ?[-–] ?(?=\d{1,3}(?:st|nd|rd|th)\b)"),
        " to ",
        (("12th–15th century", "twelfth to fifteenth century"),),
    ),
    Rule(
        "ordinal",
        re.compile(r"(?<![\w.,:])(\d{1,3}(?:,\d{3}){1,4}|\d{1,15})(?:st|nd|rd|th)\b"),
        lambda m: ordinal(m[1]),
        (("the 21st century", "the twenty-first century"), ("2nd", "second")),
    ),
    Rule(
        "whole number and fraction",
        re.compile(rf"{_START}(\d{{1,4}})[ -]{{1,2}}(\d)/(\d{{1,2}}){_END}"),
        _mixed,
        (("1 1/2 cups", "one and a half cups"), ("2½ hours", "two and a half hours")),
    ),
    Rule(
        "fraction",
        re.compile(rf"{_START}(\d{{1,6}})/([1-9]\d{{0,5}})(?![\w/]|[.,:]\d)"),
        _slash,
        (
            ("1/2 cup", "one half cup"),
            ("3/4 of it", "three quarters of it"),
            ("8/10", "eight out of ten"),
        ),
    ),
    Rule(
        "version or network address",
        re.compile(r"(?<![\w.,/:])[vV]?(\d{1,6}(?:\.\d{1,6}){2,6})(?![\w]|\.\d)"),
        lambda m: (
            ("version " if m[0][0] in "vV" else "")
            + " point ".join(cardinal(n) for n in m[1].split("."))
        ),
        (("Python 3.11.4", "Python three point eleven point four"),),
    ),
    Rule(
        "version after a name",
        re.compile(
            r"(?i:\b(python|version|release|android|ubuntu|macos) )"
            r"(\d{1,2})\.(\d{1,3})(?!\w|\.\d)"
        ),
        lambda m: f"{m[1]} {cardinal(m[2])} point {cardinal(m[3])}",
        (("Python 3.11", "Python three point eleven"),),
    ),
    Rule(
        "version",
        re.compile(r"(?<!\w)[vV](\d{1,4}(?:\.\d{1,4})?)(?![\w]|\.\d)"),
        lambda m: "version " + " point ".join(cardinal(n) for n in m[1].split(".")),
        (("in v2.1", "in version two point one"),),
    ),
    Rule(
        "range",
        re.compile(
            rf"{_START}({_WHOLE}(?:\.\d{{1,9}})?) ?[-–] ?"
            rf"({_WHOLE}(?:\.\d{{1,9}})?){_END}(?!-\d| ?=)"
        ),
        lambda m: f"{decimal(m[1])} to {decimal(m[2])}",
        (("pages 10–12", "pages ten to twelve"), ("They won 3-1.", "They won three to one.")),
    ),
    Rule(
        "sum",
        re.compile(r"(?<=\d) ?([+×÷=*]) ?(?=[\d-])"),
        lambda m: f" {_OPERATIONS[m[1]]} ",
        (("2 + 3 * 4 = 14", "two plus three times four equals fourteen"),),
    ),
    Rule(
        "difference",
        re.compile(r"(?<=\d) [-–] (?=\d)"),
        " minus ",
        (("10 - 4 = 6", "ten minus four equals six"),),
    ),
    Rule(
        "power",
        re.compile(r"(?<=[\w)])\^(?=[-\d])"),
        " to the power of ",
        (("10^6", "ten to the power of six"),),
    ),
    Rule("about", re.compile(r"~ ?(?=\d)"), "about ", (("~20 people", "about twenty people"),)),
    Rule(
        "minus",
        re.compile(r"(?:(?<=[\s(])|\A)[-–](?=\.?\d)"),
        "minus ",
        (("It fell to -7.", "It fell to minus seven."),),
    ),
    Rule(
        "year",
        re.compile(rf"{_START}(?:1[1-9]|20)\d\d{_END}"),
        _four_digits,
        (
            ("in 1999", "in nineteen ninety-nine"),
            ("since 2007", "since two thousand seven"),
            ("born in 1905", "born in nineteen oh five"),
            ("1250 books", "one thousand two hundred fifty books"),
        ),
    ),
    Rule(
        "decimal",
        re.compile(rf"(?<![\w.])({_WHOLE})?\.(\d{{1,400}})(?![\w]|\.\d)"),
        lambda m: decimal(f"{m[1] or ''}.{m[2]}"),
        (("3.14", "three point one four"), ("0.5 or .5", "zero point five or zero point five")),
    ),
    Rule(
        "cardinal",
        re.compile(rf"(?<![\w.]){_WHOLE}(?!\w|,\d)"),
        lambda m: cardinal(m[0]),
        (("1,234,567", "one million two hundred thirty-four thousand five hundred sixty-seven"),),
    ),
    Rule(
        "any other digits",
        re.compile(r" ?(\d{1,400}) ?"),
        lambda m: f" {cardinal(m[1]) if len(m[1]) < 4 else digits(m[1])} ",
        (
            ("1,23", "one, twenty-three"),
            ("ab" + "1234" * 6, "ab " + " ".join(["one two three four"] * 6)),
        ),
    ),
)
