"""Words in capitals: shouted words, acronyms, Roman numerals, mixed case.

A word in capitals is read as a word when it is in `AS_WORDS` or `COMMON`, or when it has four or
more letters and could be a word; all others are spelled letter by letter ("FBI" is "F B I").
"""

import re

from qtts_jax.text.spoken.abbreviations import STARTERS
from qtts_jax.text.spoken.number_words import cardinal, ordinal, pairs
from qtts_jax.text.spoken.rule import Rule, any_of

# Acronyms read as words.
AS_WORDS = {
    "NASA", "NATO", "UNESCO", "UNICEF", "OPEC", "AIDS", "SCUBA", "RADAR", "LASER", "SONAR", "SWAT",
    "FEMA", "OSHA", "NAFTA", "ASEAN", "FIFA", "UEFA", "IKEA", "LEGO", "RAM", "ROM", "SIM", "PIN",
    "GIF", "JPEG", "LAN", "WIFI", "CAPTCHA", "COVID", "SARS", "MERS", "NIMBY", "YOLO", "POTUS",
    "SCOTUS", "BAFTA", "TESLA", "NASDAQ", "ZIP", "TED", "SAT", "DOS", "GUI", "ASCII", "YAML",
    "JSON", "BIOS", "CERN", "INTERPOL", "QWEN", "BERT", "LIDAR", "HIPAA", "MIDI", "NORAD",
}  # fmt: skip
# Acronyms that could be words but are spelled.
SPELLED = {
    "UCLA", "ASAP", "AAA", "IMAX", "USAF", "UAE", "IOU", "AARP", "ACLU", "IEEE", "ASMR",
    "NAACP", "ESPN", "YMCA", "AKA", "DIY", "EULA", "OECD", "USDA", "IELTS", "AOL", "EOD", "ETA",
    "HIV", "ISO", "API", "APIS", "RIP", "RSVP", "CEO", "CEOS", "UFO", "UFOS", "IPO", "IRA", "IRS",
    "USA", "USB", "UNHCR", "AIIMS", "EPA", "URL", "SUV", "ID", "IT", "US", "UN", "EU", "AM", "PM",
}  # fmt: skip
# Short words; longer ones are recognised by their letters. Ambiguous ones (IT, US, AM) are words
# only among other words in capitals.
COMMON = set(
    """
    AND ANY ARE ASK ALL ADD AGE AGO AIR ART ATE BAD BAG BED BIG BIT BOX BOY BUS BUT BUY BYE CAN CAR
    CAT CUP CUT DAD DAY DID DIE DOG DRY DUE EAR EAT EGG END EYE FAR FAT FEW FIX FLY FOR FOX FUN GET
    GOD GOT GUN GUY HAD HAS HAT HER HEY HIM HIS HIT HOT HOW HUG ICE ILL ITS JAM JOB JOY KEY KID LAW
    LAY LEG LET LIE LOT LOW MAD MAN MAP MAY MEN MET MIX MOM MUD NEW NOR NOT NOW NUT ODD OFF OIL OLD
    ONE OUR OUT OWN PAY PEN PET PUT RAN RED RUN SAD SAW SAY SEA SEE SET SHE SIR SIT SIX SKY SON SUN
    TAX TEA TEN THE TIP TOO TOP TOY TRY TWO USE VAN WAR WAS WAY WET WHO WHY WIN WON YES YET YOU
    AN AS AT BE BY DO GO HE HI IF IN IS ME MY NO OF OH ON OR SO TO UP WE OK FREE SALE HELP STOP
    WHAT WHEN WITH THIS THAT FROM HAVE WILL YOUR VERY MUCH THEY THEM THEN WERE HERE
    """.split()  # noqa: SIM905
)
_AMBIGUOUS = {"IT", "US", "AM", "ID", "WHO", "RIP", "PIN"}
_SPECIAL = {
    "iPhone": "I phone", "iPhones": "I phones", "iPad": "I pad", "iPads": "I pads", "iPod": "I pod",
    "iMac": "I mac", "iOS": "I O S", "macOS": "mac O S", "eBay": "E bay", "eBook": "E book",
    "eBooks": "E books", "PhD": "P H D", "PhDs": "P H D's", "YouTube": "You Tube",
    "WiFi": "Wi-Fi", "OK": "okay", "TVs": "T V's", "LaTeX": "La tech", "GitHub": "Git Hub",
    "ChatGPT": "Chat G P T", "OpenAI": "Open A I", "PayPal": "Pay Pal", "AirPods": "Air Pods",
    "mRNA": "M R N A", "WWI": "World War one",
    "WWII": "World War two", "WW1": "World War one", "WW2": "World War two",
    "COVID": "Covid", "ID's": "I D's", "OKs": "okays",
}  # fmt: skip
_MONARCHS = (
    "Henry", "Louis", "George", "Edward", "Charles", "Elizabeth", "William", "James", "Richard",
    "Paul", "Benedict", "Pius", "Philip", "Ferdinand", "Frederick", "Napoleon", "Nicholas",
    "Alexander", "Mary", "Robert", "Francis", "Gregory", "Innocent", "Leo", "Catherine", "Peter",
    "Christian", "Gustav", "Otto", "Leopold", "Albert", "Victor", "Ivan", "Ramses", "Margaret",
    "Clement", "Urban", "Boniface", "Juan Carlos", "Felipe", "Alfonso", "Wilhelm", "Haakon",
    "Harald", "David", "John", "Stephen", "Augustus", "Ptolemy", "Darius", "Xerxes",
)  # fmt: skip
_CHAPTERS = (
    "Chapter", "Part", "Act", "Scene", "Book", "Volume", "Section", "Article", "World War", "Phase",
    "Type", "Level", "Class", "Stage", "Super Bowl", "Appendix", "Episode", "Figure", "Table",
    "chapter", "part", "act", "scene", "book", "volume", "section", "type", "stage", "level",
)  # fmt: skip
# Two consonants or more at the end of an English word.
_ENDINGS = """
    nd nt st ck ll ss ff rd rt rk rm rn rp rs rl rb rg rf rc ld lk lf lm lp lt mp ng nk ct
    ft pt sk sp sh ch th gh ght tch wn wl wk ts ps ks ds gs bs ms ns ls xt nch rst rth nth
    lth mb gn zz nn rr tt gg dd ws ys cks lls nds nts sts rds rts ngs nks mps lds ths rks
    rms rns rls cts fts wns ghts lps lts rps rbs hs
""".split()  # noqa: SIM905
_ROMAN = r"(X{0,3}(?:IX|IV|V?I{0,3}))"
_VALUES = {"I": 1, "V": 5, "X": 10}


def _roman(numeral: str) -> str:
    """The value of a Roman numeral up to 39, as figures."""
    values = [_VALUES[c] for c in numeral]
    following = [*values[1:], 0]
    return str(sum(-v if v < n else v for v, n in zip(values, following, strict=True)))


def spell(letters: str) -> str:
    """Letters with blanks between them: "FBI" is "F B I"."""
    return " ".join(letters)


def _could_be_word(word: str) -> bool:
    low = word.lower()
    return (
        len(low) > 3
        and re.search(r"[aeiouy]", low) is not None
        and re.search(r"[^aeiouy]{4}|[aeiou]{4}|[jqv]$"
                      r"|^[^aeiouy]{3}(?<!sch|scr|spr|str|thr|shr|spl|phr|chr)"
                      r"|q(?!u)|(.)\1\1", low) is None
        and re.search(rf"(?:[aeiouy]|[aeiouy][^aeiouyjqv]|{any_of(_ENDINGS)})$", low) is not None
    )  # fmt: skip


def _is_word(word: str) -> bool:
    bare = word.replace("'", "")
    return (
        bare in COMMON
        or "'" in word.rstrip("'")[1:-2]
        or (bare not in SPELLED and (bare in AS_WORDS or _could_be_word(bare)))
    )


def _capital_word(match: re.Match[str]) -> str:
    """One word in capitals, with its plural or possessive ending."""
    word, ending = match[1], match[2] or ""
    if word == "WHO" and match.string[: match.start()].endswith(("the ", "The ")):
        return spell(word)
    if word in AS_WORDS or word in COMMON or (word not in SPELLED and _could_be_word(word)):
        sentence = match.start() == 0 or match.string[: match.start()].rstrip()[-1:] in ".!?"
        return (word.capitalize() if sentence or word in AS_WORDS else word.lower()) + ending
    return spell(word) + ("'s" if ending else "")


def _shout(match: re.Match[str]) -> str:
    """A run of words in capitals, in small letters if most of them are words."""
    run = match[0]
    words = re.findall(r"[A-Z][A-Z']*", run)
    longer = [w for w in words if len(w) > 1]
    real = [w for w in longer if _is_word(w) or w in _AMBIGUOUS]
    if len(longer) < 2 or 2 * len(real) <= len(longer) or not any(map(_is_word, longer)):
        return run

    def lower(m: re.Match[str]) -> str:
        word = m[0]
        if word == "I" or word.startswith("I'"):
            return word[0] + word[1:].lower()
        if word in AS_WORDS - COMMON - _AMBIGUOUS:
            return word.capitalize()
        if len(word) > 1 and not (_is_word(word) or word in _AMBIGUOUS):
            return word
        before = match.string[: match.start() + m.start()].rstrip()
        return word.capitalize() if not before or before[-1] in ".!?" else word.lower()

    return re.sub(r"[A-Z][A-Z']*", lower, run)


def _monarch(match: re.Match[str]) -> str:
    return f"{match[1]} the {ordinal(_roman(match[2] or match[3]))}"


def _chapter(match: re.Match[str]) -> str:
    return f"{match[1]} {cardinal(_roman(match[2]))}" if match[2] else match[0]


def _initials(match: re.Match[str]) -> str:
    """Letters with full stops: "U.S." is "U S"; the stop stays when the sentence ends there."""
    rest = match.string[match.end() :]
    ends = re.match(rf"[\"')]*\s*$|[\"')]*\s+{any_of(STARTERS)}\b", rest)
    return spell(match[0].replace(".", "").upper()) + ("." if ends else "")


def _code(match: re.Match[str]) -> str:
    """Letters and digits in one word: "B2B" is "B two B", "A380" "A three eighty"."""
    spoken = []
    for part in re.findall(r"[A-Za-z]+|\d+", match[0]):
        if part.isdigit():
            spoken.append(pairs(part) if len(part) < 5 else cardinal(part))
        elif len(part) < 4 and part.isupper():
            spoken.append(part if part in AS_WORDS else spell(part))
        else:
            spoken.append(spell(part.upper()) if len(part) == 1 else part)
    return " ".join(spoken)


RULES = (
    Rule(
        "monarch",
        re.compile(
            rf"\b({any_of(_MONARCHS)}) "
            rf"(?:{_ROMAN}(?<=[IVX])(?<!\bI)|(I)(?= of\b))(?![\w-])"
        ),
        _monarch,
        (
            ("Henry VIII", "Henry the eighth"),
            ("Elizabeth II's reign", "Elizabeth the second's reign"),
        ),
    ),
    Rule(
        "chapter",
        re.compile(rf"\b({any_of(_CHAPTERS)}) {_ROMAN}(?<=[IVX])(?![\w'-])"),
        _chapter,
        (("Chapter V", "Chapter five"), ("World War II", "World War two")),
    ),
    Rule(
        "Roman numeral",
        re.compile(r"(?<=[a-z] )(I{2,3}|IV|VI{1,3}|IX|XI{1,3}|XIV|XVI{0,3}|XIX)(?![\w'-])"),
        lambda m: cardinal(_roman(m[1])),
        (("Rocky III", "Rocky three"),),
    ),
    Rule(
        "initials with full stops",
        re.compile(r"(?<![\w.])(?:[A-Za-z]\.){2,8}(?![A-Za-z]{2})"),
        _initials,
        (
            ("the U.S. Navy", "the U S Navy"),
            ("He lives in the U.S.", "He lives in the U S."),
            ("J.K. Rowling", "J K Rowling"),
        ),
    ),
    Rule(
        "degree",
        re.compile(r"\bPh\.D(\.|s)?"),
        "P H D",
        (("a Ph.D. student", "a P H D student"),),
    ),
    Rule(
        "initial",
        re.compile(
            r"(?<![\w'.])(?<!\b[A-Z] )(?!I\b)([A-Z])\. ?(?=[A-Z][a-z'])"
            rf"(?!{any_of(STARTERS)}\b)|(?<![\w'.])(?<!\b[A-Z] )([A-Z])\. (?=[A-Z]\. )"
        ),
        lambda m: f"{m[1] or m[2]} ",
        (("George W. Bush", "George W Bush"),),
    ),
    Rule(
        "mixed case",
        re.compile(rf"(?<![\w.]){any_of(_SPECIAL)}(?!\w)"),
        lambda m: _SPECIAL[m[0]],
        (("my iPhone", "my I phone"), ("OK, fine", "okay, fine")),
    ),
    Rule(
        "capital inside a word",
        re.compile(
            r"(?<=[a-z])(?<!\bMc)(?<!\bMac)(?<!\bDe)(?<!\bDi)(?<!\bLa)(?<!\bLe)(?<!\bVan)"
            r"(?<!\bFitz)(?<!\bDu)(?=[A-Z])"
        ),
        " ",
        (("JavaScript", "Java Script"), ("McDonald", "McDonald")),
    ),
    Rule(
        "letters joined by an ampersand",
        re.compile(r"(?<![\w&])([A-Z]{1,3}) ?& ?([A-Z]{1,2})(?![\w&])"),
        lambda m: f"{spell(m[1])} and {spell(m[2])}",
        (("Q&A", "Q and A"), ("AT&T", "A T and T")),
    ),
    Rule("sharp", re.compile(r"(?<![\w#])([A-G])#(?!\w)"), r"\1 sharp", (("in C#", "in C sharp"),)),
    Rule(
        "shouting",
        re.compile(
            r"(?<![\w'])[A-Z][A-Z']*"
            r"(?:[,;:!?.-]{0,3} [\"(]?[A-Z][A-Z']*(?![\w]))+(?![\w'])"
        ),
        _shout,
        (
            ("STOP! DO NOT OPEN THE DOOR.", "Stop! Do not open the door."),
            ("IT IS WHAT IT IS", "It is what it is"),
        ),
    ),
    Rule(
        "letters and digits",
        re.compile(
            r"(?<![\w.$£€'-])(?=[A-Za-z]{0,12}\d)(?!\d{1,12}(?:st|nd|rd|th|s)\b)(?!\d{1,20}\b)"
            r"[A-Za-z0-9]{2,20}(?![\w]|[.,:]\d)"
        ),
        _code,
        (
            ("a B2B deal", "a B two B deal"),
            ("the A380", "the A three eighty"),
            ("an MP3 file", "an M P three file"),
            ("4K", "four K"),
        ),
    ),
    Rule(
        "name and number",
        re.compile(r"\b([A-Za-z]{1,12})-(\d{1,4})(?![\w.,-]?\w)"),
        lambda m: f"{m[1]} {pairs(m[2])}",
        (("COVID-19", "Covid nineteen"), ("an F-150", "an F one fifty")),
    ),
    Rule(
        "word in capitals",
        re.compile(r"(?<![\w'])([A-Z]{2,40})('?s)?(?!\w)"),
        _capital_word,
        (
            ("I am VERY tired.", "I am very tired."),
            ("NASA and the FBI", "Nasa and the F B I"),
            ("two CDs", "two C D's"),
            ("the WHO report", "the W H O report"),
            ("the NYPD", "the N Y P D"),
            ("in the USA", "in the U S A"),
        ),
    ),
)
