"""English words of numbers: cardinals, ordinals, decimals, years, digits and pairs of digits.

The words come from num2words (LGPL, 20 ms to import; inflect, MIT, takes over a second), in the
American form without "and".
"""

from functools import lru_cache

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LONGEST = 15  # digits; longer numbers are read digit by digit
_LONGEST_UNGROUPED = 9


@lru_cache(maxsize=4096)
def _words(number: int, form: str) -> str:
    from num2words import num2words  # here, since most text has no number

    return num2words(number, lang="en", to=form).replace(",", "").replace(" and ", " ")


def digits(text: str) -> str:
    """The digits one by one: "204" is "two zero four"; other characters are left out."""
    return " ".join(_DIGITS[int(c)] for c in text if c in "0123456789")


def cardinal(text: str) -> str:
    """A whole number, grouped by commas or not: "1,250" is "one thousand two hundred fifty".

    Numbers with a leading zero, of more than 15 digits, or of more than 9 without commas are read
    digit by digit.
    """
    plain = text.replace(",", "")
    if len(plain) > (_LONGEST if "," in text else _LONGEST_UNGROUPED) or (
        len(plain) > 1 and plain[0] == "0"
    ):
        return digits(plain)
    return _words(int(plain), "cardinal")


def ordinal(text: str) -> str:
    """The ordinal of a whole number: "21" is "twenty-first"."""
    plain = text.replace(",", "")
    if len(plain) > _LONGEST:
        return digits(plain)
    return _words(int(plain), "ordinal")


def decimal(text: str) -> str:
    """A number with or without a decimal point: "3.14" is "three point one four"."""
    whole, point, rest = text.partition(".")
    head = cardinal(whole) if whole else "zero"
    return f"{head} point {digits(rest)}" if point and rest else head


def pairs(text: str) -> str:
    """Up to four digits as rooms, routes and times are read: "204" is "two oh four"."""
    if len(text) < 3 or len(text) > 4 or text[0] == "0":
        return cardinal(text)
    head, tail = text[:-2], text[-2:]
    if tail == "00":
        return cardinal(text) if head[-1] == "0" else f"{cardinal(head)} hundred"
    return (
        f"{cardinal(head)} oh {digits(tail)[5:]}"
        if tail[0] == "0"
        else (f"{cardinal(head)} {cardinal(tail)}")
    )


def year(text: str) -> str:
    """A year of four digits: "1999" is "nineteen ninety-nine", "2007" "two thousand seven"."""
    if text[1:3] == "00":
        return cardinal(text)
    return pairs(text)


def plural(words: str) -> str:
    """The plural of number words: "ninety" is "nineties", "two thousand" "two thousands"."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith("x") else "s")
