"""Characters and layout: invisible characters, typographic marks, line breaks, lists, brackets.

`CHARACTERS` maps single characters without looking at their neighbours, so that it can be applied
to a text in any pieces; the rules then see ASCII marks only.
"""

import re
import unicodedata

from qtts_jax.text.spoken.rule import Rule

_BLANKS = (
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u202f\u205f\u3000"
)
# In every language: blanks, line breaks, and variation selectors (of emoji), which are invisible.
_LAYOUT = {_BLANKS: " ", "\u2028\u2029\x0b\x0c\x85": "\n", "\ufe0e\ufe0f": ""}
# In every language that separates words by blanks.
_TYPOGRAPHIC = {
    "‘’‚‛ʼ′`´＇": "'",
    "“”„‟«»″＂": '"',
    "‹›": "'",
    "‐‑": "-",
    "‒−": "–",  # a range, a minus or a pause: the rules decide
    "―": "—",
    "…": "...",
}
# English spellings; accents are dropped from other Latin letters (`_fold`).
_ENGLISH = {
    "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ß": "ss", "ẞ": "Ss", "ø": "o", "Ø": "O",
    "đ": "d", "Đ": "D", "ð": "th", "Ð": "Th", "þ": "th", "Þ": "Th", "ł": "l", "Ł": "L",
    "ı": "i", "ħ": "h", "Ħ": "H",
    "•‣◦▪●○": "\n- ", "º": "°", "²": "²", "³": "³", "μ": "µ", "µ": "µ",
    "½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4", "⅛": " 1/8", "⅕": " 1/5",
    "℃": "°C", "℉": "°F", "№": "No. ", "™®¡¿": "", "©": " copyright ", "§": " section ",
    "→⇒": ", ", "。": ". ", "、": ", ", "·": " ",
}  # fmt: skip


class _Characters(dict[int, str]):
    """Table for `str.translate`, filled as characters are met."""

    def __init__(self, *tables: dict[str, str], fold: bool = False) -> None:
        super().__init__()
        self.fold = fold
        for table in tables:
            for characters, plain in table.items():
                self.update(dict.fromkeys(map(ord, characters), plain))

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character)[0] == "C" and character not in "\t\n\r":
            self[code] = ""
        else:
            self[code] = _fold(character) if self.fold and code > 127 else character
        return self[code]


def _fold(character: str) -> str:
    """A Latin letter, digit, ligature or full-width form in ASCII, if it has one."""
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    parts = unicodedata.normalize("NFKD", character)
    bare = "".join(c for c in parts if not unicodedata.combining(c))
    return bare if bare.isascii() and bare.strip() else character


INVISIBLE = _Characters(_LAYOUT)
TYPOGRAPHIC = _Characters(_LAYOUT, _TYPOGRAPHIC)
ENGLISH = _Characters(_LAYOUT, _TYPOGRAPHIC, _ENGLISH, fold=True)


RULES = (
    Rule(
        "combining marks",
        re.compile(r"(?<=[A-Za-z])[\u0300-\u036f]+"),
        "",
        (("cafe\u0301", "cafe"), ("Zoe\u0308 left.", "Zoe left.")),
    ),
    Rule("carriage return", re.compile(r"\r\n?"), "\n", (("Milk\rEggs", "Milk, Eggs"),)),
    Rule(
        "margins",
        re.compile(r"(?<![ \n])[ ]*\n[ \n]*"),
        lambda m: "\n\n" if m[0].count("\n") > 1 else "\n",
        (("The End \n \n Thanks", "The End. Thanks"),),
    ),
    Rule(
        "heading",
        re.compile(r"(?:\A|(?<=\n))\s*#{1,6} +"),
        "",
        (("# 5 plans\n\nWe leave.", "five plans. We leave."),),
    ),
    Rule(
        "quoted line",
        re.compile(r"(?:\A|(?<=\n))[ >]*> *"),
        "",
        (("> as he wrote", "as he wrote"),),
    ),
    Rule(
        "link",
        re.compile(r"\[([^\[\]\n]{1,200})\]\([^\s()]{1,300}\)"),
        r"\1",
        (("see [the guide](https://a.example.com)", "see the guide"),),
    ),
    Rule(
        "emoticon",
        re.compile(r"(?:(?<=\s)|\A)(?:[:;]-?[()DP]|<3)(?=\s|\Z)"),
        "",
        (("Great :)", "Great"), ("Love you <3 Mum", "Love you Mum")),
    ),
    Rule("reference", re.compile(r" ?\[\d{1,3}\]"), "", (("It grew [1].", "It grew."),)),
    Rule(
        "numbered list",
        re.compile(r"(?:\A\s*|[.!?;:,]?\n+)(\d{1,2})[.)] +(?=\S)"),
        lambda m: f"{'. ' if m.start() else ''}{m[1]}, ",
        (("1. Wash the rice\n2. Add water", "one, Wash the rice. two, Add water"),),
    ),
    Rule(
        "bulleted list",
        re.compile(r"(?:\A\s*|([.!?;:,])?\n+)[-*+–—] +(?=\S)"),
        lambda m: f"{m[1] or '.'} " if m.start() else "",
        (
            ("We need:\n- milk\n- eggs", "We need: milk. eggs"),
            ("• Milk\n• Eggs", "Milk. Eggs"),
        ),
    ),
    Rule(
        "paragraph",
        re.compile(r"([.!?;:,\"')])?\n\n+"),
        lambda m: f"{m[1]} " if m[1] else ". ",
        (("The End\n\nThanks", "The End. Thanks"), ("Done.\n\nNext.", "Done. Next.")),
    ),
    Rule(
        "break before a capital",
        re.compile(r"(?<=[\w)])\n(?=[A-Z0-9])"),
        ", ",
        (("Milk\nEggs\nBread", "Milk, Eggs, Bread"),),
    ),
    Rule("break", re.compile(r"\n"), " ", (("at 5\npm sharp", "at five P M sharp"),)),
    Rule(
        "emphasis",
        re.compile(
            r"\*{2,3}|(?<![\w*])\*(?=\w)|(?<=[\w.,!?])\*(?![\w*])|(?<!\w)_+(?=\w)|(?<=\w)_+(?!\w)|~~"
        ),
        "",
        (("This is **very** good.", "This is very good."), ("_7_ *pm*", "seven P M")),
    ),
    Rule("optional plural", re.compile(r"(?<=[a-z])\((e?s)\)"), r"\1", (("file(s)", "files"),)),
    Rule(
        "ellipsis before more",
        re.compile(r" ?\.{2,} ?(?=[a-z])|(?<![\w.])\.{2,} *(?=\w)"),
        ", ",
        (("Wait… what?", "Wait, what?"), ("...and then", "and then")),
    ),
    Rule(
        "dash",
        re.compile(
            r" *—+ *| +[-–]+ +(?![\d$£€])"
            r"|(?<=[A-Za-z]) +[-–]+ +|(?<=[A-Za-z,.])-{2,} *| +-{2,} *"
        ),
        ", ",
        (("The key—the old one—broke.", "The key, the old one, broke."), ("So - no", "So, no")),
    ),
)

# Applied after everything that needs the marks (telephone numbers, feet and inches, decades).
BRACKETS = (
    Rule(
        "full stop before a comma",
        re.compile(r"(?<=[A-Za-z])\.,"),
        ",",
        (("Mr. T., then", "Mister T, then"),),
    ),
    Rule(
        "brackets",
        re.compile(r" *[(\[{] *"),
        ", ",
        (("The house (the old one) was sold.", "The house, the old one, was sold."),),
    ),
    Rule(
        "closing brackets",
        re.compile(r" *[)\]}]"),
        ", ",
        (("[sic] yes", "sic, yes"), ("a (b)", "a, b")),
    ),
    Rule(
        "single quotes",
        re.compile(
            r"(?<![A-Za-z0-9])'(?!(?:tis|twas|em|cause|til|round|bout|n)\b)|(?<![sn])'(?![A-Za-z0-9])"
        ),
        "",
        (("The word 'maybe' is weak.", "The word maybe is weak."), ("Get 'em!", "Get 'em!")),
    ),
)
