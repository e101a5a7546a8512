"""Addresses of machines: e-mail, web, files and folders, handles, hashtags."""

import re

from qtts_jax.text.spoken.number_words import cardinal, digits, pairs
from qtts_jax.text.spoken.rule import Rule, any_of

_MARKS = {
    ".": "dot", "-": "dash", "_": "underscore", "/": "slash", "\\": "backslash", "@": "at",
    "+": "plus", ":": "colon", "?": "question mark", "=": "equals", "&": "and", "#": "hash",
    "~": "tilde", "%": "percent",
}  # fmt: skip
_DOMAINS = (
    "com", "org", "net", "edu", "gov", "info", "io", "ai", "dev", "app", "co.uk", "ac.uk", "uk",
    "de", "fr", "eu", "com.au",
)  # fmt: skip
_FILES = (
    "pdf", "txt", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "csv", "json", "jsonl", "xml",
    "yaml", "yml", "toml", "html", "htm", "css", "js", "ts", "py", "ipynb", "md", "rst", "tex",
    "cpp", "java", "sh", "jpg", "jpeg", "png", "gif", "svg", "webp", "mp3",
    "mp4", "wav", "flac", "ogg", "mov", "avi", "mkv", "zip", "tar", "gz", "exe", "dmg", "iso",
    "log", "bak", "ini", "cfg", "npy", "safetensors",
)  # fmt: skip
# Parts that look like words but are read letter by letter.
_LETTERS = {"io", "ai", "uk", "eu", "ca", "edu", "xls", "cpp", "exe", "iso", "avi", "ui", "us",
            "py", "img", "url", "api", "usb", "ipynb"}  # fmt: skip
_WORDS = {"wav": "wave", "jpeg": "J peg", "jpg": "J peg", "etc": "et cetera"}


def say(address: str) -> str:
    """An address part by part: "report_v2.pdf" is "report underscore V two dot P D F"."""
    address = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", address)
    spoken = []
    for part in re.findall(r"[A-Za-z]+|\d+|[^\w\s]|_", address):
        if part.isdigit():
            short = len(part) < 3 or (len(part) == 4 and part[:2] in ("19", "20"))
            spoken.append(pairs(part) if short else digits(part))
        elif part.isalpha():
            spoken.append(_part(part))
        else:
            spoken.append(_MARKS.get(part, ""))
    return " ".join(filter(None, spoken))


def _part(letters: str) -> str:
    low = letters.lower()
    if low in _WORDS:
        return _WORDS[low]
    if len(low) == 1 or low in _LETTERS or (len(low) < 6 and not re.search("[aeiouy]", low)):
        return " ".join(low.upper())
    return low


def _web(match: re.Match[str]) -> str:
    return say(re.sub(r"^https?://", "", match[0]).rstrip("/"))


def _hashtag(match: re.Match[str]) -> str:
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", match[1])
    return "hashtag " + " ".join(cardinal(p) if p.isdigit() else _part(p) for p in parts)


_PATH = r"[\w.~-]{1,80}"
RULES = (
    Rule(
        "e-mail address",
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}"),
        lambda m: say(m[0]),
        (
            ("Write to anna.b@example.com.", "Write to anna dot B at example dot com."),
            ("sales@shop.co.uk", "sales at shop dot co dot U K"),
        ),
    ),
    Rule(
        "web address",
        re.compile(
            r"(?:https?://|\bwww\.)[^\s<>\"]{0,300}[\w/]"
            r"|(?<![\w.@-])(?:[A-Za-z0-9-]{1,63}\.){1,4}" + any_of(_DOMAINS) + r"\b(?!\.?\w)"
            r"(?:/[\w./?=&%#+~-]{0,200}[\w/])?"
        ),
        _web,
        (
            ("See https://example.org/docs.", "See example dot org slash docs."),
            ("Visit www.bbc.co.uk today.", "Visit W W W dot B B C dot co dot U K today."),
        ),
    ),
    Rule(
        "path",
        re.compile(
            rf"(?<![\w./~\\])(?:~|\.{{1,2}}|[A-Z]:)?[/\\]{_PATH}(?:[/\\]{_PATH}){{1,12}}\b[/\\]?"
            rf"|(?<![\w./~\\])(?:~|\.{{1,2}}|[A-Z]:)[/\\]{_PATH}\b[/\\]?"
            rf"|(?<![\w./~\\]){_PATH}(?:/{_PATH}){{0,12}}/[\w-]{{1,80}}\.{any_of(_FILES)}\b"
        ),
        lambda m: say(m[0]),
        (
            ("Open /etc/hosts now.", "Open slash et cetera slash hosts now."),
            ("in docs/intro.txt", "in docs slash intro dot T X T"),
        ),
    ),
    Rule(
        "file name",
        re.compile(
            r"(?<![\w.-])[\w-]{1,80}(?:\.[\w-]{1,40}){0,3}\." + any_of(_FILES) + r"\b(?![.\w-]\w)",
            re.IGNORECASE,
        ),
        lambda m: say(m[0]),
        (
            ("Open report_v2.pdf.", "Open report underscore V two dot P D F."),
            ("IMG_2041.JPG", "I M G underscore twenty forty-one dot J peg"),
        ),
    ),
    Rule(
        "identifier",
        re.compile(r"(?<![\w])[A-Za-z0-9]{1,40}(?:_[A-Za-z0-9]{1,40}){1,8}(?!\w)"),
        lambda m: say(m[0]),
        (("the max_new_tokens option", "the max underscore new underscore tokens option"),),
    ),
    Rule(
        "handle",
        re.compile(r"(?<![\w.])@([A-Za-z][\w.]{0,38}\w)"),
        lambda m: "at " + say(m[1]),
        (("Thanks @sam.lee!", "Thanks at sam dot lee!"),),
    ),
    Rule(
        "hashtag",
        re.compile(r"(?<![\w&])#([A-Za-z]\w{0,60})"),
        _hashtag,
        (("#GoodNews today", "hashtag good news today"),),
    ),
)
