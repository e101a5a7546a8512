"""Dates, times of day, decades and years."""

import re

from qtts_jax.text.spoken.number_words import cardinal, digits, ordinal, pairs, plural, year
from qtts_jax.text.spoken.rule import Rule

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_SHORT = {m[:3]: m for m in MONTHS} | {"Sept": "September"}
_MONTH = "(" + "|".join((*MONTHS, r"Sept?\b\.?", *(rf"{m[:3]}\b\.?" for m in MONTHS))) + ")"
_DAY = r"(3[01]|[12]\d|0?[1-9])"
_YEAR = r"(1[1-9]\d\d|20\d\d)"
_END = r"(?![\w]|[-/.,:]\d)"
_ZONE = r"(?<![\w:.,/$£€-])"


def _month(name: str) -> str:
    return _SHORT.get(name.rstrip("."), name)


def _date(month: str, day: str, in_year: str | None) -> str:
    spoken = f"{month} {ordinal(str(int(day)))}"
    return f"{spoken}, {year(in_year)}" if in_year else spoken


def _numeric(match: re.Match[str]) -> str:
    """5/6/2024 with the month first, unless only the day can be first."""
    first, second = int(match[1]), int(match[2])
    if first > 12:
        first, second = second, first
    if not (1 <= first <= 12 and 1 <= second <= 31):
        return match[0]
    in_year = match[3] if len(match[3]) == 4 else f"20{match[3]}"
    return _date(MONTHS[first - 1], str(second), in_year)


def _day_first(match: re.Match[str]) -> str:
    the = "" if match[1] else "the "
    spoken = f"{match[1] or ''}{the}{ordinal(match[2])} of {_month(match[3])}"
    return f"{spoken}, {year(match[4])}" if match[4] else spoken


def _half(match: re.Match[str], group: int) -> str:
    """ "A M" or "P M", with the full stop of a sentence that ends there."""
    rest = match.string[match.end() :]
    ends = match[0].endswith(".") and re.match(rf"[\"')]*\s*$|\s+(?!{_AFTER_TIMES})[A-Z]", rest)
    return f" {match[group].upper()} M{'.' if ends else ''}"


def _clock(hours: str, minutes: str, half: bool = False) -> str:
    """Hours and minutes: "three forty-five", "nine oh five", "eight o'clock"."""
    hour, minute = int(hours), int(minutes)
    spoken = "zero" if hour == 0 else cardinal(str(hour))
    if minute == 0:
        if half:
            return spoken
        return f"{spoken} o'clock" if 0 < hour <= 12 else f"{spoken} hundred"
    if minute < 10:
        return f"{spoken} oh {cardinal(str(minute))}"
    return f"{spoken} {cardinal(str(minute))}"


def _decade(match: re.Match[str]) -> str:
    century, tens = match[1] or "", match[2]
    if tens == "00":
        spoken = (
            plural(cardinal(f"{century}00"))
            if century[1:] == "0"
            else (f"{cardinal(century)} hundreds" if century else match[0])
        )
        return spoken
    head = f"{cardinal(century)} " if century else ""
    return head + plural(cardinal(tens))


# Capital words that go on after a time of day: zones, days, months.
_AFTER_TIMES = (
    r"(?:[A-Z]{2,4}|Eastern|Pacific|Central|Mountain|Greenwich|[A-Z][a-z]+day|"
    + "|".join((*MONTHS, *_SHORT))
    + r")\b"
)
_A_M = r" ?([AaPp])\.?[Mm]\b\.?"
RULES = (
    Rule(
        "date in ISO order",
        re.compile(rf"{_ZONE}{_YEAR}-(0[1-9]|1[0-2])-{_DAY}(?!\w|-\d)"),
        lambda m: _date(MONTHS[int(m[2]) - 1], m[3], m[1]),
        (("due 2024-05-06", "due May sixth, twenty twenty-four"),),
    ),
    Rule(
        "date in figures",
        re.compile(rf"{_ZONE}(\d{{1,2}})[/](\d{{1,2}})[/](\d{{4}}|\d\d){_END}"),
        _numeric,
        (
            ("on 5/6/2024", "on May sixth, twenty twenty-four"),
            ("by 25/12/23", "by December twenty-fifth, twenty twenty-three"),
        ),
    ),
    Rule(
        "day and month in figures",
        re.compile(r"(?i:\b(on|by|until|since|before|after) )(\d{1,2})/(\d{1,2})(?![\w/]|[.,]\d)"),
        lambda m: (
            f"{m[1]} {_date(MONTHS[int(m[2]) - 1], m[3], None)}"
            if 1 <= int(m[2]) <= 12 and 1 <= int(m[3]) <= 31
            else m[0]
        ),
        (("on 12/25 we rest", "on December twenty-fifth we rest"),),
    ),
    Rule(
        "date with dots",
        re.compile(rf"{_ZONE}(\d{{1,2}})\.(\d{{1,2}})\.(\d{{4}}){_END}"),
        lambda m: (
            _date(MONTHS[int(m[2]) - 1], m[1], m[3])
            if 1 <= int(m[2]) <= 12 and 1 <= int(m[1]) <= 31
            else m[0]
        ),
        (("on 24.12.2023", "on December twenty-fourth, twenty twenty-three"),),
    ),
    Rule(
        "range of days",
        re.compile(rf"\b{_MONTH} {_DAY}(?:st|nd|rd|th)? ?[-–] ?{_DAY}(?:st|nd|rd|th)?{_END}"),
        lambda m: f"{_month(m[1])} {ordinal(m[2])} to {ordinal(m[3])}",
        (("May 3-5", "May third to fifth"),),
    ),
    Rule(
        "range of days before a month",
        re.compile(rf"{_ZONE}{_DAY} ?[-–] ?{_DAY} {_MONTH}\b(?:,? {_YEAR}\b)?"),
        lambda m: (
            f"{ordinal(m[1])} to {ordinal(m[2])} of {_month(m[3])}"
            + (f", {year(m[4])}" if m[4] else "")
        ),
        (("5–7 May", "fifth to seventh of May"),),
    ),
    Rule(
        "month and day",
        re.compile(rf"\b{_MONTH} {_DAY}(?:st|nd|rd|th)?(?:,? {_YEAR})?(?!\w|[-/:]\d|\.\d|,\d| ?%)"),
        lambda m: _date(_month(m[1]), m[2], m[3]),
        (
            ("May 5th, 2024", "May fifth, twenty twenty-four"),
            ("Jan. 3 was cold.", "January third was cold."),
            ("on July 4 we ate", "on July fourth we ate"),
        ),
    ),
    Rule(
        "day and month",
        re.compile(
            rf"\b(the )?(?<![.:/$£€-]){_DAY}(?:st|nd|rd|th)?(?: of)? {_MONTH}\b(?:,? {_YEAR}\b)?",
        ),
        _day_first,
        (
            ("on 5 May 2024", "on the fifth of May, twenty twenty-four"),
            ("the 1st of June", "the first of June"),
        ),
    ),
    Rule(
        "month and year",
        re.compile(rf"\b{_MONTH},? {_YEAR}(?!\w|[-/.,]\d)"),
        lambda m: f"{_month(m[1])} {year(m[2])}",
        (("in Sept 1939", "in September nineteen thirty-nine"),),
    ),
    Rule(
        "decade",
        re.compile(r"(?<![\w.,'])'?(1[1-9]|20)?(?<![.,])(\d0)'?s\b"),
        _decade,
        (
            ("the 1980s", "the nineteen eighties"),
            ("the '90s", "the nineties"),
            ("the 2000s", "the two thousands"),
            ("in his 30s", "in his thirties"),
        ),
    ),
    Rule(
        "year without century",
        re.compile(r"(?<!\w)'(\d\d)(?![\w'])"),
        lambda m: f"oh {digits(m[1][1])}" if m[1][0] == "0" else cardinal(m[1]),
        (("class of '05", "class of oh five"),),
    ),
    Rule(
        "time range with a.m. or p.m.",
        re.compile(
            rf"{_ZONE}(\d{{1,2}})(?::([0-5]\d))?(?:{_A_M})? ?(?:-|–|to) ?"
            rf"(\d{{1,2}})(?::([0-5]\d))?{_A_M}"
        ),
        lambda m: (
            _clock(m[1], m[2] or "0", True)
            + (f" {m[3].upper()} M" if m[3] else "")
            + f" to {_clock(m[4], m[5] or '0', True)}"
            + _half(m, 6)
        ),
        (
            ("open 9am-5pm", "open nine A M to five P M"),
            ("6:30–8 p.m.", "six thirty to eight P M."),
        ),
    ),
    Rule(
        "time with a.m. or p.m.",
        re.compile(rf"{_ZONE}(1[0-9]|2[0-3]|0?\d)(?:[:.]([0-5]\d))?{_A_M}"),
        lambda m: _clock(m[1], m[2] or "0", True) + _half(m, 3),
        (
            ("at 3:45 pm", "at three forty-five P M"),
            ("by 10am sharp", "by ten A M sharp"),
            ("Come at 6 p.m. We eat then.", "Come at six P M. We eat then."),
        ),
    ),
    Rule(
        "time with seconds",
        re.compile(rf"{_ZONE}(\d{{1,2}}):([0-5]\d):([0-5]\d)(?![\w:])"),
        lambda m: (
            f"{_clock(m[1], m[2], True)}"
            + (" zero zero" if m[2] == "00" else "")
            + f" and {cardinal(str(int(m[3])))} seconds"
        ),
        (("at 12:30:15", "at twelve thirty and fifteen seconds"),),
    ),
    Rule(
        "time range",
        re.compile(
            rf"{_ZONE}([01]?\d|2[0-3]):([0-5]\d) ?[-–] ?"
            rf"([01]?\d|2[0-3]):([0-5]\d)(?![\w:])"
        ),
        lambda m: f"{_clock(m[1], m[2])} to {_clock(m[3], m[4])}",
        (("9:00-17:30", "nine o'clock to seventeen thirty"),),
    ),
    Rule(
        "time",
        re.compile(rf"{_ZONE}([01]?\d|2[0-4]):([0-5]\d)(?: (o'clock|hours|hrs))?(?![\w:]|[.,]\d)"),
        lambda m: _clock(m[1], m[2]),
        (("at 17:30", "at seventeen thirty"), ("until 8:00", "until eight o'clock")),
    ),
    Rule(
        "minutes and seconds",
        re.compile(rf"{_ZONE}(\d{{1,3}}):([0-5]\d)(?![\w:])"),
        lambda m: f"{cardinal(m[1])} {'oh ' if m[2][0] == '0' else ''}{cardinal(str(int(m[2])))}",
        (("a time of 42:07", "a time of forty-two oh seven"),),
    ),
    Rule(
        "ratio",
        re.compile(rf"{_ZONE}(\d{{1,4}}):(\d{{1,4}})(?![\w:]|[.,]\d)"),
        lambda m: f"{cardinal(m[1])} to {cardinal(m[2])}",
        (("a ratio of 3:1", "a ratio of three to one"),),
    ),
    Rule(
        "range of years",
        re.compile(rf"{_ZONE}{_YEAR} ?[-–/] ?(?:{_YEAR}|(\d\d)){_END}"),
        lambda m: f"{year(m[1])} to {year(m[2]) if m[2] else cardinal(m[3])}",
        (
            ("1990-1995", "nineteen ninety to nineteen ninety-five"),
            ("1914–18", "nineteen fourteen to eighteen"),
        ),
    ),
    Rule(
        "era",
        re.compile(r"(?<![\w.,])(\d{1,4}) ?(BCE|BC|AD|CE)\b"),
        lambda m: f"{pairs(m[1])} {' '.join(m[2])}",
        (("in 1066 AD", "in ten sixty-six A D"),),
    ),
)
