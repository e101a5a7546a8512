"""What did post-training change? Scores of models on held-out prompts, and the table of all.

    python -m experiments.nano.post_training --out results/post --prompts held.jsonl \
        --before MODEL --model MODEL --row SFT --seeds 0 1 2
    python -m experiments.nano.post_training --out results/post

The first command speaks every prompt (lines with text, language and perhaps speaker and instruct)
with the model of one row, scores the speech by every judge and writes ROW.SEED.json for each seed.
`--best-of 16` speaks each 16 times and keeps the speech of the highest reward: the ceiling of what
rewards can teach. `--before` is the model before post-training, in each call the same: its voices
and durations are what speech is compared with. Both commands write post_training.md from all result
files there are: rows by seeds with word errors (of a speech at most its words), similarity,
opinions, duration ratio, changed durations, missing ends, repetitions, and the word errors less
those of the row SFT on the same prompts, with 95 % bootstrap intervals over the prompts. About 3
CPU seconds a speech, most of which `--judge-on-devices` moves to a GPU; Whisper then transcribes
without a beam, so all rows of a table need the same choice.
Expected of post-training: fewer word errors, with similarity, duration and the judge that was no
reward (DNSMOS by default) inside the interval of the row SFT."""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from experiments import command
from experiments.runner.intervals import difference
from experiments.train.rollout_judging import Expected, Judging, expectations, seeded
from qtts_jax import QwenTTS
from qtts_jax.cli.common import positive
from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.bootstrap import Estimate, Score, estimate
from qtts_jax.evaluation.rewards import RewardMix
from qtts_jax.generation.request import Request
from qtts_jax.io.atomic_files import write_whole
from qtts_jax.training.preference.pair_files import read_prompts

TABLE, BEFORE = "post_training.md", "SFT"
JUDGES = ("asr", "speaker", "duration", "mos", "dnsmos")
# Name, label, factor and digits of each column.
COLUMNS = (
    ("wer", "words wrong %", 100, 1),
    ("sim", "similarity", 1, 3),
    ("mos", "opinion (DistillMOS)", 1, 2),
    ("dnsmos", "opinion (DNSMOS)", 1, 2),
    ("ratio", "duration ratio", 1, 2),
    ("changed", "duration changed %", 100, 1),
    ("no_eos", "no end %", 100, 1),
    ("repetition", "repetition %", 100, 1),
)
# A duration that is off by more than this part of what is expected has changed.
CHANGED = RewardMix().tolerance


def score(args: argparse.Namespace) -> None:
    """Speak and score the prompts with one model, and write the result file of each seed.

    Raises:
        QTTSError: a model, the prompts or a judge cannot be used.
    """
    before = QwenTTS.from_pretrained(args.before)
    prompts, requests = read_prompts(args.prompts, before)
    expected = expectations(before, prompts, requests, args.rows, args.out / "before")
    tts = QwenTTS.from_pretrained(args.model)
    requests = read_prompts(args.prompts, tts)[1]
    memo = None if args.judge_on_devices else args.out / "scores.jsonl"
    options = args.judge_processes, args.judge_on_devices
    judging = Judging(JUDGES, prompts, expected, tts.sample_rate, memo, *options)
    for seed in args.seeds:
        data = {
            "row": args.row,
            "seed": seed,
            "best_of": args.best_of,
            "beam": not args.judge_on_devices,
            "device": jax.devices()[0].device_kind,
            "texts": [prompt["text"] for prompt in prompts],
            "clips": scored_clips(args, tts, requests, judging, expected, seed),
        }
        name = re.sub(r"\W+", "_", args.row).strip("_")
        path = args.out / f"{name}.{seed}.json"
        write_whole(path, (json.dumps(data, indent=1) + "\n").encode())
    judging.close()


def scored_clips(
    args: argparse.Namespace,
    tts: QwenTTS,
    requests: Sequence[Request],
    judging: Judging,
    expected: Expected,
    seed: int,
) -> list[dict[str, Score]]:
    """The scores of one speech of each prompt, of the highest reward of `--best-of`."""
    mix = RewardMix()
    numbers = np.repeat(np.arange(len(requests)), args.best_of).tolist()
    requested = seeded([requests[n] for n in numbers], seed)
    found: list[dict[str, Score]] = []
    for first in tqdm(range(0, len(requested), args.rows), f"{args.row}, {seed}", unit="batch"):
        spoken = tts.synthesize(requested[first : first + args.rows])
        found += judging.scores(numbers[first : first + args.rows], spoken)
    clips = []
    for number in range(len(requests)):
        group = found[number * args.best_of : (number + 1) * args.best_of]
        best = max(group, key=lambda scores: mix.rewards(scores)["reward"])
        clips.append(best | {"expected_seconds": (float(expected.seconds[number]), 1)})
    return clips


def read_results(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """The result files of a folder by row, those of the row SFT first.

    Raises:
        EvaluationError: there is none, one cannot be read, or their prompts differ.
    """
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    texts = beam = None
    for path in sorted(directory.glob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            row, own, own_beam, _ = (data[k] for k in ("row", "texts", "beam", "device"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EvaluationError(f"{path} is no result file ({error}); move it away.") from error
        if texts is not None and own != texts:
            raise EvaluationError(f"{path} has other prompts than the other results; score again.")
        if beam not in (None, own_beam):
            raise EvaluationError(
                f"{path} was transcribed otherwise than the other results; score all of them with "
                "--judge-on-devices, or none."
            )
        texts, beam = own, own_beam
        rows[row].append(data)
    if not rows:
        raise EvaluationError(f"{directory} has no results; score a model with --model first.")
    # The model before post-training comes first.
    return dict(sorted(rows.items(), key=lambda item: (item[0] != BEFORE, item[0])))


def scores_by_prompt(results: Sequence[dict[str, Any]]) -> dict[str, dict[int, list[Score]]]:
    """The scores of a row by name and number of the prompt, one a seed."""
    prompts: dict[str, dict[int, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        for number, clip in enumerate(result["clips"]):
            own = {name: tuple(value) for name, value in clip.items()}
            seconds, expected = own["seconds"][0], own["expected_seconds"][0]
            # A transcript that goes on without end counts as no word right.
            own["wer"] = (min(own["wer"]), own["wer"][1])
            own["ratio"] = (seconds / expected, 1)
            own["changed"] = (float(abs(seconds / expected - 1) > CHANGED), 1)
            for name, value in own.items():
                prompts[name][number].append(value)
    return prompts


def pooled(by_prompt: dict[int, list[Score]]) -> dict[str, Score]:
    """Sums over the seeds of each prompt."""
    return {str(n): tuple(map(sum, zip(*own, strict=True))) for n, own in by_prompt.items()}


def estimates(results: Sequence[dict[str, Any]]) -> dict[str, Estimate]:
    """The scores of a row over its seeds.

    Draws of the bootstrap are of prompts, with all seeds of a prompt together.
    """
    found = {}
    for name, by_prompt in scores_by_prompt(results).items():
        scores = list(pooled(by_prompt).values())
        if name in ("changed", "no_eos", "repetition"):
            scores = [value for values in by_prompt.values() for value in values]
        found[name] = estimate(scores)
    return found


def word_change(
    results: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]]
) -> Estimate | None:
    """Words wrong less those of the row before post-training, on the same drawn prompts."""
    mine, theirs = (pooled(scores_by_prompt(each)["wer"]) for each in (results, before))
    return difference([mine], [theirs])


def cell(found: Estimate | None, factor: float, digits: int) -> str:
    """An estimate with its interval; nothing for None."""
    if found is None:
        return ""
    value, low, high = (f"{factor * x:.{digits}f}" for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def markdown(rows: dict[str, list[dict[str, Any]]]) -> str:
    """The table of all rows."""
    labels = [*(label for _, label, _, _ in COLUMNS), f"words wrong %, less those of {BEFORE}"]
    devices = dict.fromkeys(result["device"] for results in rows.values() for result in results)
    lines = [
        "# Post-training on held-out prompts",
        "",
        f"| model | speech | {' | '.join(labels)} |",
        "|---|--:|" + "---|" * len(labels),
    ]
    for row, results in rows.items():
        found = estimates(results)
        cells = [cell(found.get(name), factor, digits) for name, _, factor, digits in COLUMNS]
        other = row != BEFORE and BEFORE in rows
        cells.append(cell(word_change(results, rows[BEFORE]) if other else None, 100, 1))
        count = f"{len(results[0]['texts'])} x {len(results)}"
        best = results[0]["best_of"]
        name = row if best == 1 else f"{row}, best of {best}"
        lines.append(f"| {name} | {count} | {' | '.join(cells)} |")
    lines += [
        "",
        "Speech: prompts x seeds. In brackets: 95 % interval over prompts. Similarity and duration "
        "are relative to the speech of the model before post-training; a duration has changed "
        f"when it is off by more than {100 * CHANGED:.0f} %. Spoken on: {', '.join(devices)}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Score a model if there is one, then write and print the table."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the result files")
    parser.add_argument("--model", type=Path, help="checkpoint to score (default: only the table)")
    parser.add_argument("--before", type=Path, help="checkpoint before post-training")
    parser.add_argument("--prompts", type=Path, help="JSONL of held-out prompts")
    parser.add_argument("--row", default=BEFORE, help="name of the model in the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the speech")
    parser.add_argument("--best-of", type=int, default=1, help="draws of a prompt, the best counts")
    parser.add_argument("--rows", type=int, default=64, help="most speech generated at once")
    parser.add_argument(
        "--judge-processes", type=positive, default=1, help="processes that judge, a core each"
    )
    parser.add_argument(
        "--judge-on-devices",
        action="store_true",
        help="Whisper (without a beam), the speaker encoder and DistillMOS score on the devices",
    )
    args = parser.parse_args()
    if args.model is not None:
        if args.before is None or args.prompts is None:
            raise EvaluationError("a score needs --before and --prompts; give both.")
        score(args)
    table = markdown(read_results(args.out))
    write_whole(args.out / TABLE, table.encode())
    print(table)


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
