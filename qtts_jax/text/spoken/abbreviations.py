"""Abbreviations with a full stop: titles, streets, Latin, companies, months and days."""

import re

from qtts_jax.text.spoken.rule import Rule, any_of

# A full stop before one of these ends a sentence, if a sentence can end there at all.
STARTERS = (
    "The", "He", "She", "It", "We", "They", "I", "You", "But", "And", "Then", "There", "This",
    "That", "These", "Those", "A", "An", "In", "On", "At", "When", "If", "So", "His", "Her", "Our",
    "My", "Their", "Its", "What", "Who", "Why", "How", "Where", "No", "Yes", "Please", "Not",
    "Is", "Are", "Do", "Did", "After", "Before", "Call", "For", "From", "To", "As", "By", "All",
)  # fmt: skip
# Before a name; the full stop is optional.
TITLES = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miss", "Dr": "Doctor", "Prof": "Professor",
    "Rev": "Reverend", "Hon": "Honorable", "Gov": "Governor", "Sen": "Senator",
    "Rep": "Representative", "Gen": "General", "Col": "Colonel", "Maj": "Major",
    "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant", "Cpl": "Corporal",
    "Pres": "President", "Mt": "Mount", "Ft": "Fort", "Fr": "Father", "Messrs": "Messers",
}  # fmt: skip
# After a name of a street or a person; the full stop is needed unless the sentence goes on.
AFTER_NAMES = {
    "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Ln": "Lane", "Hwy": "Highway",
    "Sq": "Square", "Pl": "Place", "Ct": "Court", "Jr": "Junior", "Sr": "Senior",
    "Inc": "Incorporated", "Ltd": "Limited", "Corp": "Corporation", "Co": "Company",
    "Bros": "Brothers", "Univ": "University", "Assn": "Association",
}  # fmt: skip
# Anywhere, with the full stop.
WORDS = {
    "e.g": "for example", "i.e": "that is", "etc": "et cetera", "vs": "versus", "cf": "compare",
    "approx": "approximately", "dept": "department", "Dept": "Department", "govt": "government",
    "est": "established", "Est": "Established", "max": "maximum",
    "temp": "temperature", "avg": "average", "misc": "miscellaneous", "incl": "including",
    "excl": "excluding", "tel": "telephone", "Tel": "Telephone", "ca": "circa", "al": "al",
    "appt": "appointment", "appts": "appointments", "apt": "apartment", "Apt": "Apartment",
    "ext": "extension", "hrs": "hours", "hr": "hour", "mins": "minutes", "secs": "seconds",
    "yrs": "years", "wk": "week", "qty": "quantity", "ref": "reference",
    "bldg": "building", "intl": "international", "Intl": "International",
    "E.g": "For example", "I.e": "That is", "Etc": "Et cetera", "Approx": "Approximately",
}  # fmt: skip
# Before a number.
BEFORE_NUMBERS = {
    "No": "number", "no": "number", "Nos": "numbers", "nos": "numbers", "vol": "volume",
    "Vol": "Volume", "fig": "figure", "Fig": "Figure", "ch": "chapter", "Ch": "Chapter",
    "sec": "section", "Sec": "Section", "p": "page", "pp": "pages", "art": "article",
    "Apt": "Apartment", "apt": "apartment", "ext": "extension", "Ext": "Extension", "ca": "circa",
    "c": "circa", "eq": "equation", "Eq": "Equation", "op": "opus", "Op": "Opus",
}  # fmt: skip
_DAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday",
    "Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
_MONTHS = {
    "Jan": "January", "Feb": "February", "Mar": "March", "Apr": "April", "Jun": "June",
    "Jul": "July", "Aug": "August", "Sep": "September", "Sept": "September", "Oct": "October",
    "Nov": "November", "Dec": "December",
}  # fmt: skip
_WITH = {
    "w/o": "without", "w/": "with", "b/c": "because", "c/o": "care of", "n/a": "not applicable",
    "N/A": "not applicable", "24/7": "twenty-four seven", "9/11": "nine eleven",
    "50/50": "fifty fifty",
}  # fmt: skip
# Every word that may carry a full stop inside a sentence; `segments` never cuts after one.
DOTTED = {
    *TITLES, *AFTER_NAMES, *WORDS, *_DAYS, *_MONTHS, "St", "min", "sec", "ft", "lb", "lbs", "oz",
    "km", "kg", "tbsp", "tsp", "gal", "pt", "yd", "yds", "mi", "ml", "cm", "mm",
}  # fmt: skip
_AFTER = any_of(AFTER_NAMES)
_ROADS_BEFORE = "Mount|Lake|Fort|Port|Old|New|Visit|In|At|Near|From|The|Saint|To|By|And|Of"


def _full_stop(words: str, match: re.Match[str]) -> str:
    """The words, with a full stop when the sentence ends with the abbreviation."""
    rest = match.string[match.end() :]
    ends = re.match(r"[\"')]*\s*$" + rf"|[\"')]*\s+{any_of(STARTERS)}\b", rest)
    return f"{words}." if ends and match[0].endswith(".") else words


def _first_letter(words: str, match: re.Match[str]) -> str:
    return words[0].upper() + words[1:] if match[0][0].isupper() and match.start() == 0 else words


RULES = (
    Rule(
        "spelled out in full",
        re.compile(rf"(?<![\w/]){any_of(_WITH)}(?![\d/])(?:(?<=w/)(?=\w| )|(?<!w/)(?!\w))"),
        lambda m: _WITH[m[0]] + (" " if m[0] == "w/" else ""),
        (("tea w/o milk", "tea without milk"), ("open 24/7", "open twenty-four seven")),
    ),
    Rule(
        "street",
        re.compile(
            rf"\b(?!(?:{_ROADS_BEFORE})\b)([A-Z][a-z]+|\d{{1,3}}(?:st|nd|rd|th))"
            rf" (St|Dr)\b\.?"
            rf"(?= [a-z]|[,;:?!)]|\s*$| (?:{any_of(STARTERS)})\b)"
        ),
        lambda m: _full_stop(f"{m[1]} {'Street' if m[2] == 'St' else 'Drive'}", m),
        (
            ("on Elm St. near", "on Elm Street near"),
            ("at 5 Oak Dr.", "at five Oak Drive."),
        ),
    ),
    Rule(
        "saint",
        re.compile(r"\bSt\.? (?=[A-Z][a-z])"),
        "Saint ",
        (("near St. Mary's", "near Saint Mary's"),),
    ),
    Rule(
        "title",
        re.compile(rf"\b({any_of(TITLES)})\b(?:\. ?| )(?=[A-Z])"),
        lambda m: TITLES[m[1]] + " ",
        (
            ("Dr. Smith met Mrs. Jones.", "Doctor Smith met Missus Jones."),
            ("Ask Prof. Lee or Mr Hill.", "Ask Professor Lee or Mister Hill."),
        ),
    ),
    Rule(
        "title alone",
        re.compile(r"\b(Dr|Mr|Mrs|Prof|Sgt|Capt)\b\.(?! [A-Z])"),
        lambda m: _full_stop(TITLES[m[1]], m),
        (("the Dr. said", "the Doctor said"),),
    ),
    Rule(
        "after a name",
        re.compile(rf"(?:\A|(?<=[\w,.;:!?)] ))({_AFTER})\.|(?<=[A-Za-z,] )({_AFTER})(?!['\w.-])"),
        lambda m: _full_stop(AFTER_NAMES[m[1] or m[2]], m),
        (
            ("Acme Inc. grew.", "Acme Incorporated grew."),
            ("on Park Ave. in May", "on Park Avenue in May"),
            ("He is Sam Hill Jr. He sings.", "He is Sam Hill Junior. He sings."),
        ),
    ),
    Rule(
        "before a number",
        re.compile(rf"\b({any_of(BEFORE_NUMBERS)})\. ?(?=\d)"),
        lambda m: _first_letter(BEFORE_NUMBERS[m[1]], m) + " ",
        (("See No. 5 on p. 12.", "See number five on page twelve."),),
    ),
    Rule(
        "number sign",
        re.compile(r"(?<![\w&])# ?(?=\d)"),
        "number ",
        (("We are #1!", "We are number one!"),),
    ),
    Rule(
        "anywhere",
        re.compile(rf"(?<![\w.])({any_of(WORDS)})\b(?:\.(?!\w))"),
        lambda m: _full_stop(WORDS[m[1]], m),
        (
            ("fruit, e.g. apples", "fruit, for example apples"),
            ("cats, dogs, etc.", "cats, dogs, et cetera."),
            ("approx. ten", "approximately ten"),
            ("cats vs. dogs", "cats versus dogs"),
        ),
    ),
    Rule(
        "without full stops",
        re.compile(r"(?<![\w.'])(?:etc|eg|ie)(?![\w'.])"),
        lambda m: {"etc": "et cetera", "eg": "for example", "ie": "that is"}[m[0]],
        (("tea, coffee, etc", "tea, coffee, et cetera"),),
    ),
    Rule("versus", re.compile(r"(?<= )vs(?= \w)"), "versus", (("us vs them", "us versus them"),)),
    Rule(
        "day",
        re.compile(rf"\b({any_of(_DAYS)})\b\.(?= ?(?:,|[-–]|[a-z\d]|{any_of(_MONTHS)}))"),
        lambda m: _DAYS[m[1]],
        (("Closed Mon. and Tues.", "Closed Monday and Tuesday."),),
    ),
    Rule(
        "day at the end",
        re.compile(rf"(?<=[a-z,] )({any_of(_DAYS.keys() - {'Sun', 'Sat'})})\b\.?(?=\s*$|,? \d)"),
        lambda m: _full_stop(_DAYS[m[1]], m),
        (("See you on Fri.", "See you on Friday."),),
    ),
    Rule(
        "day before a time",
        re.compile(rf"\b({any_of(_DAYS)})(?= \d)"),
        lambda m: _DAYS[m[1]],
        (("Sat 10–2", "Saturday ten to two"),),
    ),
    Rule(
        "days from and to",
        re.compile(rf"\b({any_of(_DAYS)})\.? ?[-–] ?({any_of(_DAYS)})\b\.?"),
        lambda m: _full_stop(f"{_DAYS[m[1]]} to {_DAYS[m[2]]}", m),
        (("open Mon–Fri", "open Monday to Friday"),),
    ),
    Rule(
        "month",
        re.compile(rf"\b({any_of(_MONTHS)})\.(?= [a-z]|,)"),
        lambda m: _MONTHS[m[1]],
        (("from Jan. to Dec., daily", "from January to December, daily"),),
    ),
)
