"""The two steps between a corpus and a training run, as commands.

python -m qtts_jax.data prepare corpus/manifest.jsonl dataset --keep train validation
python -m qtts_jax.data teacher model.bin whisper_encoder
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qtts_jax.data.manifest import HELD_OUT, LANGUAGES, SPLITS
from qtts_jax.data.prepare import prepare
from qtts_jax.data.whisper_files import convert_whisper
from qtts_jax.errors import QTTSError
from qtts_jax.text.bpe import TextTokenizer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 1 for a fault that the user can mend."""
    args = _parser().parse_args(arguments)
    try:
        if args.command == "teacher":
            convert_whisper(args.source, args.destination, overwrite=args.overwrite)
            return 0
        text = None if args.text_tokenizer is None else TextTokenizer.from_dir(args.text_tokenizer)
        dataset = prepare(
            args.manifest,
            args.dataset,
            sample_rate=args.sample_rate,
            text_tokenizer=text,
            languages=args.languages,
            held_out=args.held_out,
            keep=args.keep,
            workers=args.workers,
            overwrite=args.overwrite,
        )
    except QTTSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for split in sorted({record.split for record in dataset.records}):
        clips = dataset.select(split)
        hours = sum(map(dataset.seconds, clips)) / 3600
        print(f"{split}: {len(clips)} clips, {hours:.2f} h")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qtts_jax.data", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    prepared = commands.add_parser("prepare", help="manifest -> dataset directory")
    prepared.add_argument("manifest", help="JSONL")
    prepared.add_argument("dataset", help="directory to make")
    prepared.add_argument("--sample-rate", type=int, default=24000, help="of the tokenizer, Hz")
    prepared.add_argument("--text-tokenizer", help="directory whose vocabulary must know all texts")
    prepared.add_argument("--languages", nargs="+", default=LANGUAGES, help="that are allowed")
    help_ = "share of the texts without a split that become the test split"
    prepared.add_argument("--held-out", type=float, default=HELD_OUT, help=help_)
    help_ = "splits that go into the dataset"
    prepared.add_argument(
        "--keep", nargs="+", default=SPLITS, choices=SPLITS, metavar="SPLIT", help=help_
    )
    prepared.add_argument("--workers", type=int, help="threads; one a core by default")
    teacher = commands.add_parser("teacher", help="Whisper model of CTranslate2 -> its encoder")
    teacher.add_argument("source", help="model.bin, or the directory that holds it")
    teacher.add_argument("destination", help="directory to make")
    for command in (prepared, teacher):
        command.add_argument(
            "--overwrite", action="store_true", help="replace what an earlier call made"
        )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
