"""Export a trained talker as the shipped checkpoint, with a model card of measured scores.

    python -m experiments.nano.export runs/talker/model \
        --results results/nano/nano.json --data DATASET --runs runs/tokenizer runs/talker \
        --out qtts_jax/embedded_checkpoint --torch build/nano_torch

A released checkpoint has one type (base: clones, custom_voice: preset speakers, voice_design:
descriptions); this one was trained on all layouts and has all three. `--earlier` averages the
talker with the one that its last run started from. `--torch` also writes the released layout for
the official package, which reads only the type given by `--type`. Every figure of the card and of
the description comes from the files named above, or is marked as not measured. Expected: folders of
less than `--megabytes`."""

from __future__ import annotations

import argparse
import itertools
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from convert.to_torch import to_torch
from experiments import command
from qtts_jax import data
from qtts_jax.configs.tts import MODEL_TYPES, TalkerConfig, TTSConfig
from qtts_jax.errors import CheckpointError, ConfigError
from qtts_jax.functional import Params, abstract
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.io.checkpoint import load_params, read_config
from qtts_jax.io.config_file import read_json
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.speech_tokenizer.base import FOLDER
from qtts_jax.text.bpe import copy_text_files
from qtts_jax.training.export import save_talker
from qtts_jax.training.log import read_metrics

GENERATION = "generation_config.json"
CARD, DESCRIPTION = "MODEL_CARD.md", "description.txt"
INTELLIGIBILITY = ("tts", "wer")
DESCRIBED = (("codec", "stoi"), ("codec", "sim"), INTELLIGIBILITY)
# Intelligibility problems for card and description, by the lowest WER (%) at which each holds.
PROBLEMS = (
    (90.0, "its speech does not follow the text"),
    (20.0, "many of its words are not intelligible"),
    (6.0, "some of its words are not intelligible"),
)
LOUDNESS_NOTE = (
    "A loss of the decoder is modelled on the standard behind PESQ, so PESQ flatters it; the other "
    "scores have no part in that loss."
)
# A longer pause between two lines of a log separates two sessions of a run.
PAUSE_SECONDS = 120


def export(args: argparse.Namespace) -> None:
    """Write the checkpoint and print its size.

    Raises:
        CheckpointError: the source is damaged, or the result is too large; nothing is written.
    """
    config = TTSConfig.from_hf(read_config(args.model))
    tokenizer = args.tokenizer or args.model / FOLDER
    read_config(tokenizer)  # raises on a damaged one, which would be copied unread
    shapes = abstract(TTSModel, config)[1]
    params = load_params(args.model, shapes)
    if args.earlier is not None:
        params = mean_params(params, load_params(args.earlier, shapes), args.earlier_share)
    others = tuple(each for each in MODEL_TYPES if each != args.type)
    config = replace(
        config,
        model_type=args.type,
        further_types=others,
        normalize_text=True,
        named_letters=True,
        longest_text=args.longest_text,
    )
    if args.speaker is not None:
        config = replace(config, talker=with_default_speaker(config.talker, args.speaker))
    results = read_json(args.results) if args.results else None
    sources = [args.model, tokenizer, *([args.earlier] if args.earlier else [])]
    with new_directory(args.out, overwrite=True, sources=sources) as out:
        generation = read_json(args.model / GENERATION)
        save_talker(out, config, params, generation)
        copy_text_files(args.model, out)
        shutil.copytree(tokenizer, out / FOLDER)
        (out / DESCRIPTION).write_text(description(results) + "\n", encoding="utf-8")
        (out / CARD).write_text(card(args, config, results), encoding="utf-8")
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        if size > args.megabytes * 1e6:
            raise CheckpointError(
                f"the checkpoint takes {size / 1e6:.1f} MB, more than {args.megabytes:g}; train a "
                "smaller model or raise --megabytes."
            )
    if args.torch:
        to_torch(args.out, args.torch, overwrite=True)
    print(f"wrote {args.out}: {size / 1e6:.1f} MB")


def mean_params(params: Params, earlier: Params, share: float) -> Params:
    """Weighted mean `(1 - share) * params + share * earlier`, computed in float32.

    Dtypes are those of `params`. Averaging fine-tuned weights with those before keeps quality on
    voices unlike those of the last run (Wortsman et al. 2022, arXiv:2109.01903).

    Raises:
        ConfigError: a share that is not between 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"--earlier-share is {share:g}; it must be between 0 and 1.")

    def mean(x: jax.Array, y: jax.Array) -> jax.Array:
        wide = (1 - share) * x.astype(jnp.float32) + share * y.astype(jnp.float32)
        return wide.astype(x.dtype)

    return jax.tree.map(mean, params, earlier)


def with_default_speaker(talker: TalkerConfig, name: str) -> TalkerConfig:
    """The talker with that preset speaker first, which makes it the default speaker.

    Raises:
        ConfigError: there is no such speaker.
    """
    known = dict(talker.speakers)
    if name not in known:
        raise ConfigError(f"the model has no speaker {name!r}; choose among {', '.join(known)}.")
    order = sorted(known, key=lambda each: each != name)
    return replace(talker, speakers=tuple((each, known[each]) for each in order))


def description(results: dict[str, Any] | None) -> str:
    """The line that is printed when the checkpoint is used by default."""
    known = {(line["task"], line["score"]): line["value"] for line in goals(results)}
    scores = [
        f"{' '.join(key)} {known[key]:.3g}" for key in DESCRIBED if known.get(key) is not None
    ]
    wrong = intelligibility_problem(results)
    parts = [
        "nano, the small voice trained with this package's own commands",
        *filter(None, [wrong]),
    ]
    return f"{'; '.join(parts)} ({', '.join(scores) or 'not yet scored'}; see MODEL_CARD.md)"


def intelligibility_problem(results: dict[str, Any] | None) -> str | None:
    """Known intelligibility problem for the model card, or None."""
    known = {(line["task"], line["score"]): line["value"] for line in goals(results)}
    wer = known.get(INTELLIGIBILITY)
    if wer is None:
        return None
    return next((words for least, words in PROBLEMS if wer >= least), None)


def goals(results: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The goals that `experiments.nano.evaluate` wrote."""
    return [] if results is None else results["goals"]


def card(args: argparse.Namespace, config: TTSConfig, results: dict[str, Any] | None) -> str:
    """The model card."""
    talker = config.talker
    speakers = ", ".join(name for name, _ in talker.speakers) or "none"
    types = ", ".join(f"`{each}`" for each in config.types)
    lines = [
        "# nano",
        "",
        f"A text-to-speech checkpoint of the types {types}: a 12.5 Hz tokenizer with "
        f"{talker.codebooks} codebooks of {talker.codebook_size} entries and a talker of "
        f"{talker.transformer.layers} layers of width {talker.transformer.width}.",
        "",
        f"- Languages: {', '.join(name for name, _ in talker.languages)}",
        f"- Preset speakers: {speakers}",
        "",
        "## Data",
        "",
        *[line for directory in args.data for line in data_lines(directory)],
        "",
        "## Training",
        "",
        *[line for run in args.runs for line in training_lines(run)],
        *([earlier_line(args.earlier_share)] if args.earlier is not None else []),
        "",
        "## Scores",
        "",
        *score_lines(results),
        "",
        "## Limits",
        "",
        *([f"Note: {wrong}.", ""] if (wrong := intelligibility_problem(results)) else []),
        "Made to show that everything works on a fresh machine, on minutes of training and hours "
        "of speech: English, mostly the sentences of dictionaries. Synthetic voices were taught by "
        "other models' speech and keep their faults. Do not use it to imitate a person without "
        "consent.",
        *(["", LOUDNESS_NOTE] if trained_on_loudness(args.runs) else []),
    ]
    return "\n".join(lines) + "\n"


def earlier_line(share: float) -> str:
    """The line of the card about `--earlier`."""
    return (
        f"- weights of the talker: the mean of those of its last two runs, {1 - share:.2f} of the "
        f"last one's and {share:.2f} of those that it began with"
    )


def trained_on_loudness(runs: Sequence[Path]) -> bool:
    """Whether a decoder was trained with the loudness loss."""
    return any("loudness" in row for run in runs for row in read_metrics(run))


def data_lines(directory: Path) -> list[str]:
    """Hours of a dataset by source, with licence and whether it is synthetic."""
    dataset = data.Dataset(directory)
    seconds: Counter[tuple[str, str, str]] = Counter()
    for record in dataset.records:
        extra = record.extra
        kind = "synthetic" if extra.get("synthetic") else "recorded"
        if extra.get("derived"):
            # The names of blended voices have this mark (`corpus/synthesis/cpu_worker.py`).
            kind += ", of several voices" if "~" in record.speaker else ", moved in pitch"
        key = (str(extra.get("source", "unknown")), str(extra.get("licence", "unknown")), kind)
        seconds[key] += dataset.seconds(record.index)
    rows = [f"| {' | '.join(key)} | {t / 3600:.2f} |" for key, t in sorted(seconds.items())]
    head = [f"`{directory.name}`:", "", "| source | licence | kind | hours |", "|---|---|---|--:|"]
    return [*head, *rows, ""]


def training_lines(run: Path) -> list[str]:
    """Steps, time, last losses and lowest held-out loss of a run, from its log."""
    metrics = read_metrics(run)
    rows = [row for row in metrics if "loss" in row]
    gaps = [b["time"] - a["time"] for a, b in itertools.pairwise(rows)]
    minutes = sum(gap for gap in gaps if gap < PAUSE_SECONDS) / 60
    last = {k: v for k, v in rows[-1].items() if k in ("loss", "mel", "ce_first", "ce_rest")}
    ends = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
    held = [row for row in metrics if "held_out/loss" in row]
    if held:
        best = min(held, key=lambda row: row["held_out/loss"])
        ends += f"; lowest held-out loss {best['held_out/loss']:.4g} at step {best['step']}"
    return [f"- {run.name}: {rows[-1]['step']} steps in {minutes:.1f} minutes; at the end {ends}"]


def score_lines(results: dict[str, Any] | None) -> list[str]:
    """The table of goals and values."""
    if results is None:
        return ["Not measured."]
    lines = ["| task | score | goal | value | clips |", "|---|---|--:|--:|--:|"]
    for line in goals(results):
        sign = "at least" if line["at_least"] else "at most"
        bound = "unknown" if line["bound"] is None else f"{sign} {line['bound']:.4g}"
        value = "not measured" if line["value"] is None else f"{line['value']:.4g}"
        lines.append(
            f"| {line['task']} | {line['score']} | {bound} | {value} | {line.get('clips', 0)} |"
        )
    return lines


def main() -> None:
    """Export."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument(
        "model", type=Path, help="checkpoint of experiments.train.talker (type base)"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="speech tokenizer (default: that of the model)"
    )
    parser.add_argument(
        "--earlier", type=Path, help="checkpoint that the last run started from, to average with"
    )
    parser.add_argument("--earlier-share", type=float, help="its weight in the mean, such as 0.15")
    parser.add_argument(
        "--type", choices=MODEL_TYPES, default="custom_voice", help="type named in the config"
    )
    parser.add_argument("--speaker", help="default speaker (default: as trained)")
    parser.add_argument(
        "--longest-text", type=int, default=240, help="characters that it speaks well at once"
    )
    parser.add_argument("--results", type=Path, help="nano.json of experiments.nano.evaluate")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="datasets, for the card")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="runs, for the card")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--torch", type=Path, help="folder for the released layout (default: not written)"
    )
    parser.add_argument("--megabytes", type=float, default=30.0, help="largest size")
    args = parser.parse_args()
    if (args.earlier is None) != (args.earlier_share is None):
        parser.error("--earlier and --earlier-share go together")
    export(args)


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
