"""Write prompts for post-training and its measures: everyday texts with speakers in turns.

    python -m experiments.corpus.build --out corpus --steps fetch
    python -m experiments.corpus.prompts --corpus corpus --count 4000 --speaker joe af_heart \
        --out prompts.jsonl
    python -m experiments.corpus.prompts --texts experiments/nano/everyday.jsonl \
        --speaker joe af_heart --out held.jsonl

Each line of the output has text, speaker and language. `--corpus` draws new everyday sentences from
its packages, without the texts and names of the committed test set; `--texts` takes those of a file
of lines with text. Expected: a line that says how many prompts were written."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from experiments import command
from experiments.corpus.build import everyday_sentences
from experiments.corpus.sentences import reading_list
from qtts_jax.errors import DataError
from qtts_jax.io.atomic_files import write_whole


def texts_of(path: Path) -> Iterator[str]:
    """The texts of a JSONL file.

    Raises:
        DataError: it cannot be read, or a line has no text.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        texts = [json.loads(line)["text"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); a line is an object with text."
        ) from error
    yield from texts


def drawn_texts(corpus: Path, seed: int) -> Iterator[str]:
    """Everyday sentences without end, from the packages of a corpus."""
    if not (corpus / "packages").is_dir():
        raise DataError(
            f"{corpus} has no packages; run `python -m experiments.corpus.build --out {corpus} "
            "--steps fetch` first."
        )
    sentences = reading_list(corpus / "packages")
    return (each.text for each in everyday_sentences(corpus, sentences, seed))


def write(args: argparse.Namespace) -> None:
    """Write the prompts."""
    texts = texts_of(args.texts) if args.texts else drawn_texts(args.corpus, args.seed)
    if args.longest is not None:
        texts = (text for text in texts if len(text) <= args.longest)
    # Speakers in turns.
    voices = itertools.cycle(args.speaker)
    chosen = itertools.islice(texts, args.first, args.first + args.count * args.every, args.every)
    rows = [
        {"text": text, "speaker": voice, "language": args.language}
        for text, voice in zip(chosen, voices, strict=False)
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_whole(args.out, "".join(lines).encode())
    print(f"{len(rows)} prompts in {args.out}")


def main() -> None:
    """Read or draw the texts and write the prompts."""
    parser = command.parser(__doc__, __file__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--corpus", type=Path, help="folder of experiments.corpus.build")
    source.add_argument("--texts", type=Path, help="JSONL of texts")
    parser.add_argument("--out", type=Path, required=True, help="JSONL to write")
    parser.add_argument("--count", type=int, default=4000, help="most prompts")
    parser.add_argument("--longest", type=int, help="most characters of a text (default: any)")
    parser.add_argument("--first", type=int, default=0, help="texts to leave out at the beginning")
    parser.add_argument("--every", type=int, default=1, help="take every so many texts")
    parser.add_argument("--speaker", nargs="+", required=True, help="preset speakers, in turns")
    parser.add_argument("--language", default="english", help="of all texts")
    parser.add_argument("--seed", type=int, default=0, help="of drawn texts")
    write(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
