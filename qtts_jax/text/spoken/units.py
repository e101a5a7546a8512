"""Quantities with a unit, percentages, temperatures, sizes."""

import re

from qtts_jax.text.spoken.number_words import cardinal, decimal, pairs, plural
from qtts_jax.text.spoken.rule import Rule, any_of

# Symbol: (one, many). A symbol stands directly after the number or after one blank.
UNITS = {
    "km": ("kilometer", "kilometers"), "m": ("meter", "meters"),
    "cm": ("centimeter", "centimeters"), "mm": ("millimeter", "millimeters"),
    "µm": ("micrometer", "micrometers"), "nm": ("nanometer", "nanometers"),
    "mi": ("mile", "miles"), "ft": ("foot", "feet"), "yd": ("yard", "yards"),
    "yds": ("yard", "yards"), "km²": ("square kilometer", "square kilometers"),
    "m²": ("square meter", "square meters"), "cm²": ("square centimeter", "square centimeters"),
    "m³": ("cubic meter", "cubic meters"), "cm³": ("cubic centimeter", "cubic centimeters"),
    "sq ft": ("square foot", "square feet"), "sq. ft": ("square foot", "square feet"),
    "sq m": ("square meter", "square meters"), "kg": ("kilogram", "kilograms"),
    "g": ("gram", "grams"), "mg": ("milligram", "milligrams"), "µg": ("microgram", "micrograms"),
    "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"), "oz": ("ounce", "ounces"),
    "l": ("liter", "liters"), "L": ("liter", "liters"), "ml": ("milliliter", "milliliters"),
    "mL": ("milliliter", "milliliters"), "cl": ("centiliter", "centiliters"),
    "dl": ("deciliter", "deciliters"), "gal": ("gallon", "gallons"), "pt": ("pint", "pints"),
    "tbsp": ("tablespoon", "tablespoons"), "tsp": ("teaspoon", "teaspoons"),
    "mph": ("mile per hour", "miles per hour"),
    "kph": ("kilometer per hour", "kilometers per hour"),
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "m/s": ("meter per second", "meters per second"),
    "h": ("hour", "hours"), "hr": ("hour", "hours"), "hrs": ("hour", "hours"),
    "min": ("minute", "minutes"), "mins": ("minute", "minutes"), "s": ("second", "seconds"),
    "sec": ("second", "seconds"), "secs": ("second", "seconds"),
    "ms": ("millisecond", "milliseconds"), "µs": ("microsecond", "microseconds"),
    "ns": ("nanosecond", "nanoseconds"), "yr": ("year", "years"), "yrs": ("year", "years"),
    "kB": ("kilobyte", "kilobytes"), "KB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"), "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"), "PB": ("petabyte", "petabytes"),
    "GiB": ("gibibyte", "gibibytes"), "MiB": ("mebibyte", "mebibytes"),
    "kbps": ("kilobit per second", "kilobits per second"),
    "Mbps": ("megabit per second", "megabits per second"),
    "Gbps": ("gigabit per second", "gigabits per second"),
    "Hz": ("hertz", "hertz"), "kHz": ("kilohertz", "kilohertz"), "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"), "W": ("watt", "watts"), "kW": ("kilowatt", "kilowatts"),
    "MW": ("megawatt", "megawatts"), "GW": ("gigawatt", "gigawatts"),
    "Wh": ("watt hour", "watt hours"), "kWh": ("kilowatt hour", "kilowatt hours"),
    "V": ("volt", "volts"), "mA": ("milliamp", "milliamps"),
    "mAh": ("milliamp hour", "milliamp hours"), "kJ": ("kilojoule", "kilojoules"),
    "cal": ("calorie", "calories"),
    "kcal": ("kilocalorie", "kilocalories"), "hp": ("horsepower", "horsepower"),
    "psi": ("P S I", "P S I"), "hPa": ("hectopascal", "hectopascals"), "Pa": ("pascal", "pascals"),
    "kPa": ("kilopascal", "kilopascals"), "dB": ("decibel", "decibels"),
    "px": ("pixel", "pixels"), "MP": ("megapixel", "megapixels"), "dpi": ("D P I", "D P I"),
    "rpm": ("R P M", "R P M"), "bpm": ("beat per minute", "beats per minute"),
    "fps": ("frame per second", "frames per second"),
    "ppm": ("part per million", "parts per million"),
    "mpg": ("mile per gallon", "miles per gallon"),
    "°C": ("degree Celsius", "degrees Celsius"), "° C": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "° F": ("degree Fahrenheit", "degrees Fahrenheit"), "°": ("degree", "degrees"),
    "%": ("percent", "percent"), "Ω": ("ohm", "ohms"),
    "ha": ("hectare", "hectares"),
}  # fmt: skip
# Read as units only directly after the number, for alone they are words or letters.
_ATTACHED = {
    "in": ("inch", "inches"), "t": ("ton", "tons"), "x": ("time", "times"),
    "A": ("amp", "amps"), "d": ("day", "days"), "k": ("thousand", "thousand"),
    "bn": ("billion", "billion"), "M": ("million", "million"), "c": ("cent", "cents"),
}  # fmt: skip
_PER = {"h": "hour", "s": "second", "kg": "kilogram", "km": "kilometer", "m": "meter", "l": "liter",
        "L": "liter", "day": "day", "week": "week", "month": "month", "year": "year", "mo": "month",
        "yr": "year", "hr": "hour", "min": "minute", "person": "person", "night": "night",
        "m²": "square meter", "lb": "pound", "head": "head", "hour": "hour"}  # fmt: skip
_NUMBER = r"(\d{1,3}(?:,\d{3}){1,5}(?:\.\d{1,9})?|\d{1,15}(?:\.\d{1,9})?|\.\d{1,9})"
_START = r"(?<![\w.,/:])"
_SIGN = r"(?:(?<![\w)])([-–])(?=[\d.]))?"
_UNIT = any_of(UNITS)
_NOUNS = any_of((
    "race", "run", "dash", "sprint", "walk", "hike", "ride", "swim", "pool", "bag", "bottle",
    "pack",
    "box", "drive", "card", "disk", "bulb", "limit", "radius", "file", "battery", "screen", "zone",
    "charger",
))  # fmt: skip
_COUNTED = any_of((
    "people", "users", "customers", "views", "viewers", "downloads", "copies", "homes", "jobs",
    "followers", "subscribers", "years", "books", "cars",
))  # fmt: skip
_FINAL = r"(?![\w²³°]|-\d|/\w)"


def _number(text: str) -> str:
    whole, point, part = text.replace(",", "").partition(".")
    return decimal(f"{whole}{point}{part}")


def _quantity(number: str, unit: str, minus: str | None) -> str:
    one, many = UNITS.get(unit) or _ATTACHED[unit]
    return f"{'minus ' if minus else ''}{_number(number)} {one if number == '1' else many}"


RULES = (
    Rule(
        "feet and inches",
        re.compile(r"(?<![\w.,])(\d{1,2})'(\d{1,2})(?:\"|'')?(?!\w)"),
        lambda m: f"{cardinal(m[1])} foot {cardinal(m[2])}",
        (("He is 6'2\" tall.", "He is six foot two tall."),),
    ),
    Rule(
        "feet and inches in letters",
        re.compile(
            r"(?<![\w.,])(\d{1,2}) ?(?:ft|feet)\.?,? (\d{1,2}) ?in(?:\.(?= [a-z])|(?![\w]))"
        ),
        lambda m: f"{cardinal(m[1])} feet {cardinal(m[2])} inches",
        (("5 ft 4 in tall", "five feet four inches tall"),),
    ),
    Rule(
        "millions of things",
        re.compile(rf"(?<![\w.,])(\d{{1,4}}(?:\.\d{{1,3}})?)m(?= {_COUNTED}\b)"),
        lambda m: f"{decimal(m[1])} million",
        (("5m people", "five million people"),),
    ),
    Rule(
        "inches",
        re.compile(
            r"(?<![\w.,])(\d{1,3}(?:\.\d{1,2})?)(?:\"(?=[ ,.-]?(?:screen|monitor|TV|pipe|"
            r"display|laptop|wide|long|tall|deep|thick|nails?)))"
        ),
        lambda m: f"{decimal(m[1])} inch",
        (('a 27" monitor', "a twenty-seven inch monitor"),),
    ),
    Rule(
        "hours and minutes",
        re.compile(r"(?<![\w.,])(\d{1,3}) ?h,? ?(\d{1,2}) ?m(?:in)?(?!\w)"),
        lambda m: f"{_quantity(m[1], 'h', None)} {_quantity(m[2], 'min', None)}",
        (("in 3h 20m", "in three hours twenty minutes"),),
    ),
    Rule(
        "fraction of a unit",
        re.compile(rf"(?<![\w.,/])(\d{{1,3}}[ -]{{1,2}})?(\d/\d{{1,2}}) ?({_UNIT}){_FINAL}"),
        lambda m: f"{m[1] or ''}{m[2]} {UNITS[m[3]][bool(m[1])]}",
        (("3/4 tsp", "three quarters teaspoon"), ("1½ km", "one and a half kilometers")),
    ),
    Rule(
        "models in the plural",
        re.compile(r"(?<![\w.,])(?:(?<=[A-Za-z]-)(\d{1,3})|(\d{3}))s\b"),
        lambda m: plural(pairs(m[1] or m[2])),
        (("two 747s", "two seven forty-sevens"), ("some F-16s", "some F-sixteens")),
    ),
    Rule(
        "sizes",
        re.compile(
            rf"{_START}{_NUMBER} ?(?:x|×|by) ?{_NUMBER}(?: ?(?:x|×) ?{_NUMBER})?"
            rf"(?: ?({_UNIT}|in))?(?!\w| ?=)"
        ),
        lambda m: (
            " by ".join(_number(n) for n in m.groups()[:3] if n)
            + (f" {(UNITS.get(m[4]) or _ATTACHED[m[4]])[1]}" if m[4] else "")
        ),
        (("a 4x6 card", "a four by six card"), ("3 × 4 m", "three by four meters")),
    ),
    Rule(
        "range of quantities",
        re.compile(rf"{_START}{_SIGN}{_NUMBER} ?(?:{_UNIT})? ?[-–] ?{_NUMBER} ?({_UNIT}){_FINAL}"),
        lambda m: f"{'minus ' if m[1] else ''}{_number(m[2])} to {_number(m[3])} {UNITS[m[4]][1]}",
        (("5-10 km", "five to ten kilometers"), ("20–25%", "twenty to twenty-five percent")),
    ),
    Rule(
        "quantity before a noun",
        re.compile(rf"{_START}{_NUMBER}(?:-({_UNIT})(?=[ -][a-z])| ?({_UNIT})(?= {_NOUNS}\b))"),
        lambda m: f"{_number(m[1])} {UNITS[m[2] or m[3]][0]}",
        (("a 10-km run", "a ten kilometer run"), ("the 100 m race", "the one hundred meter race")),
    ),
    Rule(
        "quantity per unit",
        re.compile(rf"{_START}{_NUMBER} ?({_UNIT}) ?/ ?({any_of(_PER)})(?!\w)"),
        lambda m: (
            f"{_quantity(m[1], m[2], None)} per {_PER[m[3]]}"
            if f"{m[2]}/{m[3]}" not in UNITS
            else _quantity(m[1], f"{m[2]}/{m[3]}", None)
        ),
        (
            ("5 mg/kg", "five milligrams per kilogram"),
            ("at 90 km/h", "at ninety kilometers per hour"),
        ),
    ),
    Rule(
        "quantity",
        re.compile(rf"{_START}{_SIGN}{_NUMBER} ?({_UNIT}){_FINAL}(\.(?= ?[a-z]))?"),
        lambda m: _quantity(m[2], m[3], m[1]),
        (
            ("72 kg", "seventy-two kilograms"),
            ("-5°C outside", "minus five degrees Celsius outside"),
            ("1 GB", "one gigabyte"),
            ("2.5% more", "two point five percent more"),
        ),
    ),
    Rule(
        "quantity with an attached unit",
        re.compile(rf"{_START}{_NUMBER}({any_of(_ATTACHED)})(?![\w²³°]|-\d|/\w)"),
        lambda m: _quantity(m[1], m[2], None),
        (("10x faster", "ten times faster"), ("5in wide", "five inches wide")),
    ),
    Rule(
        "per",
        re.compile(rf"(?<=[a-z])/({any_of(_PER)})(?![\w/])"),
        lambda m: f" per {_PER[m[1]]}",
        (("$20/month", "twenty dollars per month"),),
    ),
)
