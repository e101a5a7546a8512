"""Amounts of money with a currency sign or code."""

import re

from qtts_jax.text.spoken.number_words import cardinal, decimal
from qtts_jax.text.spoken.rule import Rule, any_of
from qtts_jax.text.spoken.units import UNITS

# Sign or code: (one, many, one hundredth, hundredths); None where the hundredth is not used.
CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "US$": ("U S dollar", "U S dollars", "cent", "cents"),
    "A$": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "C$": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", None, None),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", None, None),
    "₿": ("bitcoin", "bitcoins", None, None),
    "USD": ("U S dollar", "U S dollars", "cent", "cents"),
    "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"),
    "JPY": ("yen", "yen", None, None),
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"),
}
_SCALES = {
    "k": "thousand", "K": "thousand", "m": "million", "M": "million", "mn": "million",
    "b": "billion", "B": "billion", "bn": "billion", "t": "trillion", "tn": "trillion",
    "T": "trillion", "thousand": "thousand", "million": "million", "billion": "billion",
    "trillion": "trillion",
}  # fmt: skip
_CODE = f"({any_of(CURRENCIES)})"
_AMOUNT = r"(\d{1,3}(?:,\d{3}){1,5}|\d{1,15})(?:\.(\d{1,3}))?"
_SCALE = rf"(?:[ -]?({any_of(_SCALES)})\b)?"
_THINGS = (
    "bill", "note", "coin", "voucher", "coupon", "ticket", "fee", "fine", "deposit", "discount",
    "gift", "tip", "prize", "meal", "loan", "reward", "donation", "budget", "deal",
)  # fmt: skip


def _money(currency: str, whole: str, part: str | None, scale: str | None) -> str:
    one, many, cent, cents = CURRENCIES[currency]
    number = whole.replace(",", "")
    if scale:
        return f"{decimal(f'{number}.{part}' if part else number)} {_SCALES[scale]} {many}"
    if part and (len(part) != 2 or cent is None):
        return f"{decimal(f'{number}.{part}')} {many}"
    unit = one if int(number) == 1 else many
    if not part or part == "00":
        return f"{cardinal(number)} {unit}"
    small = f"{cardinal(str(int(part)))} {cent if int(part) == 1 else cents}"
    return small if int(number) == 0 else f"{cardinal(number)} {unit} and {small}"


_PLAIN = r"(\d{1,3}(?:,\d{3}){1,4}(?:\.\d{1,2})?|\d{1,12}(?:\.\d{1,2})?)"
RULES = (
    Rule(
        "decimal comma",
        re.compile(rf"(?<![\w.,])(\d{{1,6}}),(\d{{1,2}})(?= ?(?:€|{any_of(UNITS)})(?!\w))"),
        r"\1.\2",
        (("5,50 €", "five euros and fifty cents"), ("1,5 kg", "one point five kilograms")),
    ),
    Rule(
        "amount below one",
        re.compile(r"(?<=[$£€])\.(?=\d\d(?!\d))"),
        "0.",
        (("$.50", "fifty cents"),),
    ),
    Rule(
        "range of amounts",
        re.compile(rf"(?<![\w.]){_CODE}{_PLAIN} ?[-–] ?(?:\1)?{_PLAIN}{_SCALE}(?!\w|[.,]\d)"),
        lambda m: (
            f"{decimal(m[2].replace(',', ''))} to {decimal(m[3].replace(',', ''))}"
            + (f" {_SCALES[m[4]]}" if m[4] else "")
            + f" {CURRENCIES[m[1]][1]}"
        ),
        (("$10-15 each", "ten to fifteen dollars each"), ("£5–£7", "five to seven pounds")),
    ),
    Rule(
        "amount before a thing",
        re.compile(rf"(?<![\w.]){_CODE}(\d{{1,6}})[ -](?={any_of(_THINGS)}\b)"),
        lambda m: f"{cardinal(m[2])} {CURRENCIES[m[1]][0]} ",
        (("a $20 bill", "a twenty dollar bill"),),
    ),
    Rule(
        "debt",
        re.compile(rf"(?<![\w.)])[-–](?={any_of(CURRENCIES)}\d)"),
        "minus ",
        (("a balance of -$40", "a balance of minus forty dollars"),),
    ),
    Rule(
        "amount after its sign",
        re.compile(rf"(?<![A-Za-z.]){_CODE} ?{_AMOUNT}{_SCALE}(?!\d)"),
        lambda m: _money(m[1], m[2], m[3], m[4]),
        (
            ("It costs $12.50.", "It costs twelve dollars and fifty cents."),
            ("£10 or €3m", "ten pounds or three million euros"),
            ("$5 million", "five million dollars"),
            ("only $0.99", "only ninety-nine cents"),
            ("$1,299", "one thousand two hundred ninety-nine dollars"),
        ),
    ),
    Rule(
        "amount before its sign",
        re.compile(rf"(?<![\w.,]){_AMOUNT}{_SCALE} ?{_CODE}(?![\w$£€¥])"),
        lambda m: _money(m[4], m[1], m[2], m[3]),
        (("20 € a day", "twenty euros a day"), ("50 USD", "fifty U S dollars")),
    ),
    Rule(
        "cents",
        re.compile(r"(?<![\w.,])(\d{1,4}) ?¢"),
        lambda m: f"{cardinal(m[1])} cent{'' if m[1] == '1' else 's'}",
        (("1¢ or 25¢", "one cent or twenty-five cents"),),
    ),
    Rule(
        "pence",
        re.compile(r"(?<![\w.,:])(\d{1,2})p\b"),
        lambda m: f"{cardinal(m[1])} {'penny' if m[1] == '1' else 'pence'}",
        (("a 50p coin", "a fifty pence coin"),),
    ),
)
