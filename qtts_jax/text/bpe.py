"""Text to token ids: the checkpoint's byte-level BPE and the fixed chat strings around a text.

Upstream: `Qwen2TokenizerFast` of transformers, and `Qwen3TTSModel._build_assistant_text`,
`_build_ref_text` and `_build_instruct_text` with the slices that
`Qwen3TTSForConditionalGeneration.generate` takes of their ids by position.
"""

import json
import re
import shutil
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from qtts_jax.errors import TextError
from qtts_jax.text.nfc import stable_length

# The pre-token pattern the Qwen models were trained with.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What transformers 4.57.3 puts in its place when a local directory is loaded with
# `fix_mistral_regex=True`, as upstream does; see `TextTokenizer.from_dir`.
MISTRAL_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_ASSISTANT_HEAD = "<|im_start|>assistant\n"
_ASSISTANT_TAIL = "<|im_end|>\n<|im_start|>assistant\n"
_REFERENCE_TAIL = "<|im_end|>\n"
_INSTRUCT_HEAD = "<|im_start|>user\n"
# Positions, not contents: a text that begins with a line break shares a token with the template.
_ROLE = 3
_ASSISTANT_END = 5
_REFERENCE_END = 2
# Files of a checkpoint folder that hold the text tokenizer; released folders lack the last one.
_TEXT_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "tokenizer.json")


def copy_text_files(source: Path, destination: Path) -> None:
    """Copy those files of the text tokenizer that a checkpoint folder has into another folder."""
    for name in _TEXT_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, destination / name)


def byte_words(split: str = QWEN2_SPLIT) -> pre_tokenizers.PreTokenizer:
    """Cuts text into words by a pattern, each as the byte alphabet of the vocabulary."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


class TextTokenizer:
    """Byte-level BPE of a Qwen checkpoint, with the chat strings the talker was trained on."""

    def __init__(
        self,
        vocab: dict[str, int],
        merges: list[tuple[str, str]],
        added_tokens: dict[str, int],
        split: str = QWEN2_SPLIT,
    ):
        """Build from tables.

        Args:
            vocab: byte-level token -> id.
            merges: pairs, the most preferred first.
            added_tokens: literal string -> id; found in the raw text before anything else.
            split: pre-token pattern, `QWEN2_SPLIT` or `MISTRAL_SPLIT`.

        Raises:
            TextError: tables that contradict each other or lack the chat tokens.
        """
        for token in ("<|im_start|>", "<|im_end|>"):
            if token not in added_tokens:
                raise TextError(f"The text tokenizer has no token {token}: use its own files.")
        # Given to the model too, so that they get the ids of the checkpoint.
        ids = {**vocab, **added_tokens}
        if len(set(ids.values())) != len(ids):
            raise TextError("The text vocabulary gives one id to two tokens: use its own files.")
        try:
            self._model = models.BPE(vocab=ids, merges=merges)
        except Exception as error:  # the library raises bare Exception
            raise TextError(f"merges.txt does not fit vocab.json: {error}.") from error
        self._normalizer = normalizers.NFC()
        self._pre_tokenizer = byte_words(split)
        self._tokenizer = Tokenizer(self._model)
        self._tokenizer.normalizer = self._normalizer
        self._tokenizer.pre_tokenizer = self._pre_tokenizer
        self._tokenizer.add_special_tokens(
            [AddedToken(token, normalized=False, special=True) for token in added_tokens]
        )
        self.added_tokens = dict(added_tokens)
        longest_first = sorted(added_tokens, key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, longest_first)))
        self._added_beginnings = frozenset(
            token[:cut] for token in added_tokens for cut in range(1, len(token))
        )

    @classmethod
    def from_dir(cls, directory: str | Path, *, exact_reference: bool = False) -> "TextTokenizer":
        """Read a checkpoint's own text files.

        Args:
            directory: holds `tokenizer.json`, or `vocab.json`, `merges.txt` and
                `tokenizer_config.json`.
            exact_reference: split words as upstream does for a local directory. It passes
                `fix_mistral_regex=True`, upon which transformers 4.57.3 replaces the Qwen pattern
                by Mistral's if the vocabulary exceeds 100,000 and `config.json` names no version
                or one after 4.57.2 and before 5. Released checkpoints name 4.57.3. Loaded by hub
                id the same checkpoint keeps the Qwen pattern, which is the default here. The two
                differ at capitals inside a word ("McDonald"), combining marks and slashes. A
                `tokenizer.json` that was saved after the swap holds Mistral's, which then counts.

        Raises:
            TextError: files that are missing, broken or of another kind of tokenizer.
        """
        directory = Path(directory)
        if (directory / "tokenizer.json").is_file():
            vocab, merges, added, split = _read_tokenizer_json(directory / "tokenizer.json")
        else:
            vocab, merges, added = _read_vocab_and_merges(directory)
            split = QWEN2_SPLIT
        if (directory / "tokenizer_config.json").is_file():
            added |= _read_added_tokens(directory / "tokenizer_config.json")
        mistral = exact_reference and _reference_swaps_pattern(directory, len(vocab))
        return cls(vocab, merges, added, MISTRAL_SPLIT if mistral else split)

    def encode(self, text: str) -> list[int]:
        """Ids of any string; added tokens written out in it become their one id."""
        return self._tokenizer.encode(_joined_surrogates(text), add_special_tokens=False).ids

    def assistant_ids(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of the text to speak, cut where upstream cuts its chat string.

        Returns:
            (role, text): the first 3 ids of the whole string, and its ids[3:-5].

        Raises:
            TextError: empty or blank text.
        """
        _check_text(text, "The text to speak")
        ids = self.encode(_ASSISTANT_HEAD + text + _ASSISTANT_TAIL)
        return ids[:_ROLE], ids[_ROLE:-_ASSISTANT_END]

    def reference_ids(self, text: str) -> list[int]:
        """Ids of the transcript of reference audio: ids[3:-2] of its chat string.

        Raises:
            TextError: empty or blank text.
        """
        _check_text(text, "The reference text")
        return self.encode(_ASSISTANT_HEAD + text + _REFERENCE_TAIL)[_ROLE:-_REFERENCE_END]

    def instruct_ids(self, text: str) -> list[int]:
        """Ids of the whole chat string of an instruction.

        Raises:
            TextError: empty or blank text.
        """
        _check_text(text, "The instruction")
        return self.encode(_INSTRUCT_HEAD + text + _REFERENCE_TAIL)

    def incremental(self) -> "IncrementalText":
        """A new consumer of text that arrives in parts."""
        return IncrementalText(self)

    def normalize(self, text: str) -> str:
        """NFC by the tokenizer's own Unicode tables."""
        return self._normalizer.normalize_str(text)

    def pre_tokens(self, text: str) -> list[tuple[str, tuple[int, int]]]:
        """Byte-level pre-tokens of normalised text and the characters each spans."""
        return self._pre_tokenizer.pre_tokenize_str(text)

    def merge(self, pre_token: str) -> list[int]:
        """Ids of one byte-level pre-token."""
        return [token.id for token in self._model.tokenize(pre_token)]

    def token_size(self, id_: int) -> int:
        """UTF-8 bytes that a token stands for.

        Raises:
            TextError: there is no such id.
        """
        token = self._tokenizer.id_to_token(id_)
        if token is None:
            raise TextError(f"The text tokenizer has no id {id_}: use ids of its own.")
        # A symbol of the byte alphabet is one byte; an added token is written as it is.
        return len(token.encode() if token in self.added_tokens else token)

    def find_added(self, text: str, ended: bool) -> tuple[list[re.Match[str]], int]:
        """Added tokens in a text that goes on unless `ended`.

        Returns:
            Those that no continuation can undo, and the position from which the text may yet turn
            out to be an added token (its length if it cannot).
        """
        matches = list(self._added.finditer(text))
        if ended:
            return matches, len(text)
        longest = max(map(len, self.added_tokens))
        for start in range(max(0, len(text) - longest + 1), len(text)):
            if text[start:] in self._added_beginnings and not any(
                match.start() < start < match.end() for match in matches
            ):
                return [match for match in matches if match.start() < start], start
        return matches, len(text)


class IncrementalText:
    """Ids of a text that arrives in parts; each id is returned once no continuation can change it.

    All ids returned, concatenated, are `assistant_ids(text)[1]` of the whole text, however it was
    cut. Held back are: what may become an added token, what NFC may still change, and the last
    pre-token with whatever before it may still join it. The work is linear in the text as long as
    words are of bounded length.

    Attributes:
        role_ids: `assistant_ids(text)[0]`, complete once an id of the text has been given out. It
            waits for the text because a leading line break joins the template's own.
    """

    def __init__(self, tokenizer: TextTokenizer):
        self.role_ids: list[int] = []
        self._tokenizer = tokenizer
        self._raw = _ASSISTANT_HEAD  # may still become an added token or change under NFC
        self._open = ""  # normalised; its last pre-tokens are not final
        self._blank = True
        self._finished = False

    def push(self, piece: str) -> list[int]:
        """Take the next part (any length, even empty) and return the text ids that are now final.

        Raises:
            TextError: after `finish`, or if the part is not text.
        """
        if self._finished:
            raise TextError("This text has ended: begin another for more pieces.")
        if not isinstance(piece, str):
            raise TextError(f"Text must arrive as str, got {type(piece).__name__}.")
        self._blank = self._blank and not piece.strip()
        return self._emit(self._consume(piece))

    def finish(self) -> list[int]:
        """End the text and give the ids that were held back.

        Raises:
            TextError: if the text was empty or blank, or ended within a surrogate pair.
        """
        if self._finished:
            raise TextError("This text has ended already.")
        if self._blank:
            raise TextError("The text to speak is empty: give at least one word.")
        self._finished = True
        ids = self._consume("", ended=True)
        # The template's end begins with an added token, so it never joins the text; its ids are
        # more than the 5 that are cut off only if the vocabulary lacks "assistant".
        tail = self._tokenizer.encode(_ASSISTANT_TAIL)
        return self._emit(ids + tail[: len(tail) - _ASSISTANT_END])

    def _consume(self, piece: str, ended: bool = False) -> list[int]:
        text = _joined_surrogates(self._raw + piece, open_ended=not ended)
        whole = len(text) - _ends_with_high_surrogate(text)
        matches, undecided = self._tokenizer.find_added(text[:whole], ended)
        ids, start = [], 0
        for match in matches:
            ids += self._close(text[start : match.start()])
            ids.append(self._tokenizer.added_tokens[match.group()])
            start = match.end()
        if ended:
            return ids + self._close(text[start:])
        stable = start + stable_length(text[start:undecided])
        ids += self._extend(self._tokenizer.normalize(text[start:stable]))
        self._raw = text[stable:]
        return ids

    def _close(self, rest: str) -> list[int]:
        """Give all that is open before an added token or the end."""
        text = self._open + self._tokenizer.normalize(rest)
        self._open = ""
        return [id_ for token, _ in self._tokenizer.pre_tokens(text) for id_ in self._merge(token)]

    def _extend(self, text: str) -> list[int]:
        """Append normalised text and give the pre-tokens that became final."""
        known = max(len(self._open), 1)
        self._open += text
        if not any(map(_parts, self._open[known - 1 :], self._open[known:])):
            return []
        tokens = self._tokenizer.pre_tokens(self._open)
        final = len(tokens) - 1
        while final > 0:
            cut = tokens[final][1][0]
            if _parts(self._open[cut - 1], self._open[cut]):
                break
            final -= 1
        self._open = self._open[tokens[final][1][0] :]
        return [id_ for token, _ in tokens[:final] for id_ in self._merge(token)]

    def _merge(self, pre_token: str) -> list[int]:
        return self._tokenizer.merge(pre_token)

    def _emit(self, ids: list[int]) -> list[int]:
        missing = _ROLE - len(self.role_ids)
        self.role_ids += ids[:missing]
        return ids[missing:]


def _parts(left: str, right: str) -> bool:
    """Whether a pre-token boundary between two characters, once there, is there for good.

    Both patterns read an optional first character and then a run of one kind: letters and marks,
    white space, or other symbols; a digit always stands alone. How they divide a run depends on all
    of it (capitals, line breaks), but a run that has ended is divided for good.
    """
    before, after = _kind(left), _kind(right)
    return "?" not in (before, after) and (before != after or before == "N")


@lru_cache(maxsize=4096)
def _kind(char: str) -> str:
    """L letter or mark, S white space, N digit, P other, ? not assigned (tables may differ)."""
    if char.isspace():
        return "S"
    category = unicodedata.category(char)
    if category == "Cn":
        return "?"
    return {"L": "L", "M": "L", "N": "N"}.get(category[0], "P")


def _check_text(text: Any, what: str) -> None:
    if not isinstance(text, str):
        raise TextError(f"{what} must be a str, got {type(text).__name__}.")
    if not text.strip():
        raise TextError(f"{what} is empty: give at least one word.")


def _ends_with_high_surrogate(text: str) -> bool:
    return "\ud800" <= text[-1:] <= "\udbff"


def _joined_surrogates(text: str, open_ended: bool = False) -> str:
    """Put UTF-16 surrogate pairs together; a high one may still wait at the end if `open_ended`."""
    if not re.search("[\ud800-\udfff]", text):
        return text
    waiting = text[-1] if open_ended and _ends_with_high_surrogate(text) else ""
    body = text[: len(text) - len(waiting)]
    try:
        return body.encode("utf-16", "surrogatepass").decode("utf-16") + waiting
    except UnicodeDecodeError as error:
        raise TextError(
            "The text holds half of a UTF-16 pair: it was cut or decoded badly."
        ) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise TextError(f"Cannot read {path}: copy it from the released checkpoint.") from error
    except ValueError as error:
        raise TextError(f"{path} is not valid JSON: {error}.") from error


def _read_vocab_and_merges(
    directory: Path,
) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, int]]:
    vocab = _read_json(directory / "vocab.json")
    if not isinstance(vocab, dict):
        raise TextError(f"{directory / 'vocab.json'} is not a table of tokens: copy it again.")
    path = directory / "merges.txt"
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise TextError(f"Cannot read {path}: copy it from the released checkpoint.") from error
    if lines[0].startswith("#version:"):
        lines = lines[1:]
    return vocab, _pairs(lines, path), {}


def _read_tokenizer_json(
    path: Path,
) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, int], str]:
    """Tables and pre-token pattern of a `tokenizer.json`; all steps must be those built here."""
    content = _read_json(path)
    try:
        steps = content["pre_tokenizer"]["pretokenizers"]
        is_qwen2 = (
            content["model"]["type"] == "BPE"
            and content["normalizer"]["type"] == "NFC"
            and [step["type"] for step in steps] == ["Split", "ByteLevel"]
            and steps[0]["pattern"]["Regex"] in (QWEN2_SPLIT, MISTRAL_SPLIT)
        )
        vocab, merges = content["model"]["vocab"], content["model"]["merges"]
        added = _added_tokens(content["added_tokens"], path)
    except (KeyError, TypeError) as error:
        raise TextError(f"{path} is not a tokenizer file: {error!r} is missing or odd.") from error
    if not is_qwen2:
        raise TextError(f"{path} is not a Qwen2 tokenizer: use the file of the checkpoint itself.")
    return vocab, _pairs(merges, path), added, steps[0]["pattern"]["Regex"]


def _pairs(merges: list[Any], path: Path) -> list[tuple[str, str]]:
    """Merges written as "left right" lines or as two-element lists."""
    pairs = [merge.split() if isinstance(merge, str) else merge for merge in merges]
    try:
        return [(left, right) for left, right in filter(None, pairs)]
    except (TypeError, ValueError) as error:
        raise TextError(f"{path} has a merge that is not a pair: copy the file again.") from error


def _read_added_tokens(path: Path) -> dict[str, int]:
    content = _read_json(path)
    try:
        listed = content.get("added_tokens_decoder", {}).items()
        return _added_tokens([{**token, "id": int(id_)} for id_, token in listed], path)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TextError(f"{path} has no usable added_tokens_decoder: {error!r}.") from error


def _added_tokens(tokens: list[dict[str, Any]], path: Path) -> dict[str, int]:
    for token in tokens:
        flags = [f for f in ("lstrip", "rstrip", "single_word", "normalized") if token.get(f)]
        if flags:
            raise TextError(
                f"{path}: added token {token['content']!r} sets {flags[0]}, which no Qwen "
                "checkpoint does and this tokenizer does not support."
            )
    return {token["content"]: token["id"] for token in tokens}


def _reference_swaps_pattern(directory: Path, vocab_size: int) -> bool:
    if vocab_size <= 100_000 or not (directory / "config.json").is_file():
        return False
    version = _read_json(directory / "config.json").get("transformers_version") or "4.57.3"
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:3])
    return (4, 57, 2) < numbers < (5,)
