"""Commands that prepare the data of a training run.

python -m qtts_jax.data prepare corpus/manifest.jsonl dataset --keep train validation
python -m qtts_jax.data teacher model.bin whisper_encoder
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from qtts_jax.data.manifest import FORMAT_HELP, LANGUAGES
from qtts_jax.data.prepare import prepare
from qtts_jax.data.splits import HELD_OUT, SPLITS
from qtts_jax.data.whisper_files import convert_whisper
from qtts_jax.errors import QTTSError
from qtts_jax.text.bpe import TextTokenizer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 1 for a fault that the user can fix."""
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
    print(f"{dataset.directory}: {len(dataset)} clips")
    for split in SPLITS:
        clips = [record.index for record in dataset.records if record.split == split]
        hours = sum(map(dataset.seconds, clips)) / 3600
        line = f"{split}: {len(clips)} clips, {hours:.2f} h"
        if split not in args.keep:
            line = f"{split}: {dataset.left_out.get(split, 0)} clips left out (not in --keep)"
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qtts_jax.data", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    prepared = commands.add_parser(
        "prepare",
        help="manifest -> dataset directory",
        epilog=FORMAT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    prepared.add_argument("manifest", help="JSONL of clips, see below")
    prepared.add_argument("dataset", help="directory to make")
    prepared.add_argument(
        "--sample-rate", type=int, default=24000, help="of the tokenizer, Hz (default: %(default)s)"
    )
    prepared.add_argument("--text-tokenizer", help="directory whose vocabulary must know all texts")
    prepared.add_argument("--languages", nargs="+", default=LANGUAGES, help="that are allowed")
    help_ = (
        "share of the texts without a split that become the test split, and again the validation "
        f"split; without any split in the manifest at least one text each ({HELD_OUT})"
    )
    prepared.add_argument("--held-out", type=float, default=HELD_OUT, help=help_)
    help_ = "splits that go into the dataset; clips of others are left out (all three)"
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
