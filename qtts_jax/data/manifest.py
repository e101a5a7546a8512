"""The manifest of a corpus: one clip a line, checked before any work is done."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from qtts_jax.data.splits import SPLITS, same_text
from qtts_jax.errors import DataError
from qtts_jax.text.bpe import TextTokenizer

# The languages of the released models.
LANGUAGES = (
    "chinese", "english", "french", "german", "italian", "japanese", "korean", "portuguese",
    "russian", "spanish",
)  # fmt: skip
MIN_SECONDS, MAX_SECONDS = 0.1, 60.0
# What the room's README and the help of `prepare` say of the format.
FORMAT_HELP = f"""\
A manifest is a JSONL file in UTF-8, one recording a line, each a JSON object. Needed in each:
  audio        path of the recording, relative to the manifest; {MIN_SECONDS:g} to {MAX_SECONDS:g} s
  text         what is said, with at least one letter or digit
  speaker      any name, the same in all clips of a voice
  language     {", ".join(LANGUAGES[:5])},
               {", ".join(LANGUAGES[5:])}
Optional:
  split        {", ".join(SPLITS)}; the same text has the same split everywhere
  instruction  a description of the voice or manner, in words
  alignment    when the text is spoken: at least two pairs [characters, seconds], neither ever
               decreasing; at that time so many characters of the text have been spoken. Between
               two pairs the reader goes evenly, before the first and after the last stands still
All other fields (source, licence, synthetic, ...) are kept in the dataset as they are. Example:
  {{"audio": "a.wav", "text": "Good morning.", "speaker": "ada", "language": "english"}}"""
_KNOWN = ("audio", "text", "speaker", "language", "instruction", "split")


@dataclass(frozen=True)
class Clip:
    """One line of a manifest.

    Attributes:
        line: number in the file, from 1.
        audio: path of the recording.
        text: what is said.
        speaker: any name, the same in all clips of a voice.
        language: full lower-case name.
        split: "train", "validation" or "test"; None leaves it to `splits_of`.
        instruction: how it is said, in words.
        extra: the other fields.
    """

    line: int
    audio: Path
    text: str
    speaker: str
    language: str
    split: str | None = None
    instruction: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(
    path: str | os.PathLike[str],
    *,
    text_tokenizer: TextTokenizer | None = None,
    languages: Sequence[str] = LANGUAGES,
) -> list[Clip]:
    """All clips of a manifest, after every check that needs no decoding.

    Args:
        path: JSONL, UTF-8; relative audio paths are relative to its directory.
        text_tokenizer: texts must consist of symbols that it knows; None to take any text.
        languages: names that are allowed.

    Raises:
        DataError: the first fault, with the file and the line: no manifest or no clips; a line
            that is no JSON object or has half of a character; a field that is missing, empty or of
            a wrong type; an unknown language, split or symbol; an alignment that does not go
            forward through the text; a recording that does not exist, cannot be read, is too short
            or too long, or occurs twice; a text in two splits.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the manifest {path} cannot be read: {error}.") from error
    checks = _Checks(path, text_tokenizer, languages)
    clips = [checks.clip(i, line) for i, line in enumerate(lines, 1) if line.strip()]
    if not clips:
        raise DataError(f"the manifest {path} has no clips; add a line for each recording.")
    return clips


def unknown_symbols(tokenizer: TextTokenizer, symbols: Iterable[str]) -> list[str]:
    """Those of `symbols` (characters) that the vocabulary cannot spell, sorted."""
    unknown = []
    for symbol in sorted(set(symbols)):
        spelled = "".join(t for t, _ in tokenizer.pre_tokens(tokenizer.normalize(symbol)))
        if not all(tokenizer.merge(byte) for byte in spelled):
            unknown.append(symbol)
    return unknown


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf


class _Checks:
    """The checks of one manifest, with what earlier lines have shown."""

    def __init__(
        self, path: Path, tokenizer: TextTokenizer | None, languages: Sequence[str]
    ) -> None:
        self._path, self._tokenizer, self._languages = path, tokenizer, languages
        self._known: set[str] = set()
        self._audio: dict[Path, int] = {}
        self._splits: dict[str, tuple[str, int]] = {}

    def clip(self, line: int, content: str) -> Clip:
        try:
            fields = json.loads(content)
        except json.JSONDecodeError as error:
            self._fail(line, f"is not JSON ({error.msg}); write one object a line")
        if not isinstance(fields, dict):
            self._fail(line, "is not a JSON object; write one object a line")
        self._check_characters(line, fields)
        for name in ("audio", "text", "speaker", "language"):
            value = fields.get(name)
            if not isinstance(value, str) or not value.strip():
                self._fail(line, f"needs a {name}, a string that is not empty, not {value!r}")
        for name in ("instruction", "split"):
            value = fields.get(name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                self._fail(line, f"has the {name} {value!r}; write a string or leave it out")
        self._check_words(line, fields)
        if fields.get("alignment") is not None:
            self._check_alignment(line, fields["alignment"], len(fields["text"]))
        clip = Clip(
            line,
            self._path.parent / fields["audio"],
            fields["text"],
            fields["speaker"],
            fields["language"],
            fields.get("split"),
            fields.get("instruction"),
            {name: value for name, value in fields.items() if name not in _KNOWN},
        )
        self._check_audio(clip)
        return clip

    def _check_characters(self, line: int, fields: dict[str, Any]) -> None:
        """JSON can spell half of a surrogate pair, which no file of text can hold."""
        try:
            json.dumps(fields, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            self._fail(line, f"has {half!r}, half of a character; write it whole or leave it out")

    def _check_words(self, line: int, fields: dict[str, Any]) -> None:
        text, language, split = fields["text"], fields["language"], fields.get("split")
        if language not in self._languages:
            known = ", ".join(self._languages)
            self._fail(line, f"has the unknown language {language!r}; it must be one of {known}")
        if split not in (None, *SPLITS):
            self._fail(line, f"has the unknown split {split!r}; it must be one of {SPLITS}")
        if not same_text(text):
            self._fail(line, f"has a text without words, {text!r}; write what is said")
        if self._tokenizer is not None and not self._known.issuperset(text):
            unknown = unknown_symbols(self._tokenizer, set(text) - self._known)
            if unknown:
                self._fail(
                    line,
                    f"has symbols in its text that the text tokenizer does not know: {unknown}; "
                    "spell them out",
                )
            self._known.update(text)
        if split is not None:
            other, first = self._splits.setdefault(same_text(text), (split, line))
            if other != split:
                self._fail(
                    line,
                    f"puts its text into {split!r}, but line {first} has the same text in "
                    f"{other!r}; keep every text in one split",
                )

    def _check_alignment(self, line: int, alignment: Any, length: int) -> None:
        if not isinstance(alignment, list) or len(alignment) < 2:
            self._fail(line, "has an alignment that is no list of at least two pairs; leave it out")
        for pair in alignment:
            if not (isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))):
                self._fail(
                    line, f"has {pair!r} in its alignment; write pairs [characters, seconds]"
                )
            if not 0 <= pair[0] <= length:
                self._fail(
                    line,
                    f"has {pair!r} in its alignment, outside its text of {length} characters; "
                    "count the characters of the text",
                )
        for before, after in itertools.pairwise(alignment):
            if after[0] < before[0] or after[1] < before[1]:
                self._fail(
                    line,
                    f"has {after!r} after {before!r} in its alignment; sort the pairs, so that "
                    "neither characters nor seconds decrease",
                )

    def _check_audio(self, clip: Clip) -> None:
        import soundfile

        if not clip.audio.is_file():
            self._fail(clip.line, f"names a recording that does not exist: {clip.audio}")
        first = self._audio.setdefault(clip.audio.resolve(), clip.line)
        if first != clip.line:
            self._fail(clip.line, f"has the recording of line {first} again; remove one of them")
        try:
            info = soundfile.info(str(clip.audio))
        except (soundfile.LibsndfileError, RuntimeError) as error:
            self._fail(clip.line, f"names {clip.audio}, which is no readable audio ({error})")
        seconds = info.frames / info.samplerate
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            self._fail(
                clip.line,
                f"names {clip.audio} of {seconds:.2f} s; clips have from {MIN_SECONDS:g} to "
                f"{MAX_SECONDS:g} s",
            )

    def _fail(self, line: int, fault: str) -> NoReturn:
        raise DataError(f"line {line} of {self._path} {fault}.")
