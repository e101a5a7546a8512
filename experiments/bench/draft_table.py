"""Library of the draft benchmark: its figures as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments import command

# Codebooks of the table by codebook.
SHOWN = (2, 3, 4, 6, 8, 12, 16, 21)


def table(result: Mapping[str, Any]) -> str:
    """Acceptance, passes and times of all settings."""
    settings, plain = result["settings"], result["residual_codebooks"]
    some = next(iter(settings.values()))
    depths, windows = [*some["acceptance"]], [*some["passes"]]
    lines = [
        "# Drafts of the code predictor",
        "",
        f"`python -m experiments.bench.draft_acceptance` with {result['model']} on "
        f"{result['machine']}; {result['texts']} sentences, float32. `checkpoint` samples with the "
        "settings of the checkpoint, `official` with those of the official package.",
        "",
        "Share of drafts that equal the code of the plain loop, by depth (1: the next codebook):",
        "",
        *_rows(["sampling", "frames", *depths]),
    ]
    for name, one in settings.items():
        lines += _row([name, one["frames"], *one["acceptance"].values()])
    lines += ["", "At depth 1, by codebook:", ""]
    codebooks = [str(q) for q in SHOWN if str(q) in some["by_codebook"]["1"]]
    lines += _rows(["sampling", *codebooks])
    for name, one in settings.items():
        lines += _row([name, *(one["by_codebook"]["1"][q] for q in codebooks)])
    lines += [
        "",
        f"Passes of the predictor a frame, by draft window (the plain loop has {plain}):",
        "",
        *_rows(["sampling", *windows]),
    ]
    for name, one in settings.items():
        lines += _row([name, *one["passes"].values()])
    lines += [
        "",
        "Frames with another code than in the plain loop, all by ties within rounding:",
        "",
    ]
    lines += _rows(["sampling", "frames", *windows])
    for name, one in settings.items():
        lines += _row([name, one["frames"], *one["differing_frames"].values()])
    lines += [
        "",
        "Milliseconds a frame by draft window, batch 1 (1 is the plain loop). Where the load "
        "average is above the cores, other programs ran, and times compare within a row only, "
        "roughly:",
        "",
    ]
    lines += _rows(["sampling", "measured", *windows, "load average before"])
    for name, one in settings.items():
        for field, what in (("predictor", "predictor alone"), ("whole", "with the talker")):
            figures = one[f"{field}_ms_a_frame"].values()
            lines += _row([name, what, *figures, one["load_before"]])
    positions = [*next(iter(result["pass"].values()))["ms_by_positions"]]
    lines += ["", "Milliseconds of one pass with its heads, by positions (random weights):", ""]
    lines += _rows(["predictor", *positions])
    for name, one in result["pass"].items():
        size = f"{name}; {one['layers']} layers of width {one['width']}"
        lines += _row([size, *one["ms_by_positions"].values()])
    return "\n".join(lines) + "\n"


def _rows(names: Sequence[str]) -> list[str]:
    """The head of a table."""
    return [*_row(names), "|---|" + "--:|" * (len(names) - 1)]


def _row(cells: Sequence[Any]) -> list[str]:
    return ["| " + " | ".join(map(str, cells)) + " |"]


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.bench.draft_acceptance"))
