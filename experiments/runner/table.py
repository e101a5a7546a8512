"""Library of the ablations: the tables of an ablation, from whatever results exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments import command
from experiments.runner.ablation import Ablation
from experiments.runner.intervals import Scores, difference, estimate
from experiments.runner.measures import MEASURES, Measure
from experiments.runner.results import Result
from qtts_jax.evaluation.bootstrap import Estimate

TINY_NOTE = (
    "These models have some hundred thousand parameters and trained for a minute: the table shows "
    "that the machinery works, and nothing about a model of 0.6B."
)
Failures = Mapping[tuple[str, int], str]


def markdown(
    ablation: Ablation, scale: str, found: Sequence[Result], failures: Failures, command_line: str
) -> str:
    """Question, budgets, scores with intervals, differences, failures and what was not measured."""
    by_name: dict[str, list[Result]] = {
        name: [r for r in found if r["variation"] == name] for name in ablation.variations
    }
    lines = [f"# {ablation.question}", "", f"    {command_line}", ""]
    lines += [TINY_NOTE, ""] if scale == "tiny" else []
    if found:
        lines += ["## Budget", "", *_budget(by_name), "", "## Scores", "", *_scores(by_name), ""]
        lines += [_legend(found), "", *_differences(by_name), *_notes(found)]
    if missing := _missing(by_name):
        lines += ["", f"Without a result yet: {', '.join(missing)}."]
    for (name, seed), reason in failures.items():
        lines += ["", f"Failed: {name}, seed {seed}: {reason}"]
    return "\n".join(lines).rstrip() + "\n"


def _missing(by_name: Mapping[str, Sequence[Result]]) -> list[str]:
    """Variations without a result, and seeds that another variation has and this one has not."""
    seeds = sorted({r["seed"] for runs in by_name.values() for r in runs})
    missing = []
    for name, runs in by_name.items():
        left = [str(seed) for seed in seeds if seed not in {r["seed"] for r in runs}]
        if not runs:
            missing.append(name)
        elif left:
            missing.append(f"{name} with seed {', '.join(left)}")
    return missing


def scores_of(runs: Sequence[Result], measure: Measure) -> Scores:
    """The scores of a measure, one mapping for each run that has them."""
    found = [r["scores"]["scores"].get(measure.row, {}).get(measure.name) for r in runs]
    return [clips for clips in found if clips]


def shown(found: Sequence[Result]) -> list[Measure]:
    """The measures that any result has."""
    return [m for m in MEASURES if scores_of(found, m)]


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    out = [f"| {' | '.join(head)} |", "|---|" + "--:|" * (len(head) - 1)]
    return out + [f"| {' | '.join(row)} |" for row in rows]


def _budget(by_name: Mapping[str, Sequence[Result]]) -> list[str]:
    """What each variation is and what its training took, means over its seeds."""
    columns: list[tuple[str, Callable[[Result], Any]]] = [
        ("frames/s", lambda r: r["frame_rate"]),
        ("codebooks", lambda r: r["codebooks"]),
        ("bit/s", lambda r: r["bit_rate"]),
        ("speech in the data, clips", lambda r: r["clips_trained_on"]),
        ("tokenizer, parameters", lambda r: r["tokenizer"]["parameters"]),
        ("steps", lambda r: sum(s["steps"] for s in r["tokenizer"]["stages"])),
        ("speech seen, s", lambda r: sum(s["audio_seconds"] for s in r["tokenizer"]["stages"])),
        ("TFLOP", lambda r: sum(s["flops"] for s in r["tokenizer"]["stages"]) / 1e12),
        ("talker, parameters", lambda r: r["talker"]["parameters"]),
        ("steps", lambda r: r["talker"]["steps"]),
        ("speech seen, s", lambda r: r["talker"]["audio_seconds"]),
        ("frames a clip", lambda r: r["talker"]["frames"] / r["talker"]["clips"]),
        ("codes seen", lambda r: r["talker"]["codes"]),
        ("TFLOP", lambda r: r["talker"]["flops"] / 1e12),
        ("minutes a run", lambda r: _seconds(r) / 60),
    ]
    rows = [
        [f"{name} ({len(runs)})", *(_mean([of(r) for r in runs]) for _, of in columns)]
        for name, runs in by_name.items()
        if runs
    ]
    return _grid(["variation (seeds)", *(label for label, _ in columns)], rows)


def _seconds(r: Result) -> float:
    return sum(s["seconds"] for s in [*r["tokenizer"]["stages"], r["talker"]])


def _mean(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    return f"{mean:,.0f}" if mean >= 1000 else f"{mean:.4g}"


def _scores(by_name: Mapping[str, Sequence[Result]]) -> list[str]:
    measures = shown([r for runs in by_name.values() for r in runs])
    rows = [
        [name, *(cell(m, estimate(scores_of(runs, m))) for m in measures)]
        for name, runs in by_name.items()
        if runs
    ]
    return _grid(["variation", *map(_label, measures)], rows)


def _differences(by_name: Mapping[str, Sequence[Result]]) -> list[str]:
    """Differences from the first variation, over the seeds that both have."""
    names = [name for name, runs in by_name.items() if runs]
    if len(names) < 2:
        return []
    first, rows = by_name[names[0]], []
    measures = shown(first)
    for name in names[1:]:
        both = {r["seed"] for r in first} & {r["seed"] for r in by_name[name]}
        mine, theirs = ([r for r in runs if r["seed"] in both] for runs in (by_name[name], first))
        cells = [difference(scores_of(mine, m), scores_of(theirs, m)) for m in measures]
        rows.append([name, *map(cell, measures, cells)])
    title = f"## Difference from {names[0]}, the same seeds and clips"
    return [title, "", *_grid(["variation", *map(_label, measures)], rows), ""]


def _label(m: Measure) -> str:
    return f"{m.label} {'↑' if m.better == 'higher' else '↓'}"


def cell(measure: Measure, found: Estimate | None) -> str:
    """Value and interval as people read them."""
    if found is None:
        return ""
    value, low, high = (
        f"{measure.scale * x:.{measure.digits}f}" for x in (found.value, found.low, found.high)
    )
    return f"{value} [{low}, {high}]"


def _legend(found: Sequence[Result]) -> str:
    clips = {len(next(iter(r["scores"]["scores"]["resynthesis"].values()))) for r in found}
    seeds = sorted({r["seed"] for r in found})
    return (
        f"In brackets: 95 % bootstrap interval over seeds ({', '.join(map(str, seeds))}) and "
        f"{'/'.join(map(str, sorted(clips)))} held-out clips. {_machines(found)}"
    )


def _machines(found: Sequence[Result]) -> str:
    """Where the runs were made; a run may move to another machine between its pieces."""
    scored = {_machine(r["machine"]) for r in found}
    trained = {_machine(r["talker"].get("machine", r["machine"])) for r in found}
    if trained == scored:
        return f"Machine: {'; '.join(sorted(scored))}."
    return f"Trained on {'; '.join(sorted(trained))}; scored on {'; '.join(sorted(scored))}."


def _machine(about: Mapping[str, Any]) -> str:
    return f"{about['device']}, {about['machine']}"


def _notes(found: Sequence[Result]) -> list[str]:
    """What was not measured and which trainings ended early."""
    kinds = {m.judge: m for m in MEASURES if m.judge}
    wanted = {name for r in found for name in r["scores"]["judges"]}
    missing = {name for r in found for name in r["scores"]["not_measured"]}
    labels = {"asr": "WER", "speaker": "SIM", "stoi": "STOI", "pesq": "PESQ"}
    notes = [
        f"{labels[kind]} was not measured: its judge is not installed (extra `eval`)."
        for kind in kinds
        if kind in missing
    ]
    unwanted = [labels[kind] for kind in kinds if kind not in wanted]
    if unwanted:
        notes.append(f"{' and '.join(unwanted)} were not measured (`--judges`).")
    short = sorted(
        f"{r['variation']}, seed {r['seed']}"
        for r in found
        if any(s["steps"] < s["planned"] for s in [*r["tokenizer"]["stages"], r["talker"]])
    )
    if short:
        notes.append(
            f"Ended by the time limit before the last step, so budgets differ: {'; '.join(short)}."
        )
    return [line for note in notes for line in (note, "")]


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
