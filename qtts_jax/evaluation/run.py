"""One evaluation from a manifest to a report."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtts_jax.data.manifest import Clip
from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.judges.package import load
from qtts_jax.evaluation.judges.speaker import SpeakerJudge
from qtts_jax.evaluation.panel import KINDS, Panel
from qtts_jax.evaluation.report import Report
from qtts_jax.evaluation.rows import Row
from qtts_jax.evaluation.tasks.clips import choose
from qtts_jax.evaluation.tasks.clone import clone_rows
from qtts_jax.evaluation.tasks.codec import codec_rows
from qtts_jax.evaluation.tasks.description import default_pairs, description_rows, read_pairs
from qtts_jax.evaluation.tasks.speaking import Speaking
from qtts_jax.evaluation.tasks.speed import speed_rows
from qtts_jax.evaluation.tasks.tts import tts_rows

TASKS = ("codec", "tts", "clone", "description", "speed")
MEMO = "memo.jsonl"
# Judges that apply to a task.
FITTING: dict[str, tuple[str, ...]] = {
    "codec": tuple(KINDS),
    "tts": ("asr", "mos", "dnsmos"),
    "clone": ("asr", "speaker", "mos", "dnsmos", "pitch", "duration"),
    "description": (),
    "speed": (),
}


@dataclass(frozen=True)
class Plan:
    """What to evaluate and on what.

    Attributes:
        task: one of `TASKS`.
        manifest: JSONL of clips.
        out: directory of the report, made if needed; a memo of scores is kept there.
        clips, split, speech, language, min_seconds, unseen: which clips; see `choose`.
        judges: names; None for all that fit the task.
        opus: bits a second of the baselines of "codec".
        speaking: how to generate.
        speakers, instruct, ref_audio: voices; see `tts_rows`.
        x_vector_only: how to clone.
        pairs: file of descriptions; None for the usual words.
        plot: draw one, too.
    """

    task: str
    manifest: Path
    out: Path
    clips: int | None = 50
    split: str = "test"
    speech: str = "all"
    language: str | None = None
    min_seconds: float = 2.0
    unseen: bool = False
    judges: Sequence[str] | None = None
    opus: Sequence[int] = (6000, 12000)
    speaking: Speaking = field(default_factory=Speaking)
    speakers: Sequence[str] = ()
    instruct: str | None = None
    ref_audio: Sequence[str] = ()
    x_vector_only: bool = True
    pairs: Path | None = None
    plot: bool = True


def evaluate(plan: Plan, model: Callable[[], Any], about: dict[str, Any] | None = None) -> Report:
    """Run a task and write its report.

    Args:
        model: loads a `SpeechTokenizer` for "codec", otherwise a `QwenTTS`; called when all else
            is known to be there.
        about: further entries of the report, such as the path of the checkpoint.

    Raises:
        QTTSError: a package, the manifest, a recording or the model is missing or does not fit.
    """
    if plan.task not in TASKS:
        raise EvaluationError(f"there is no task {plan.task!r}; choose among {', '.join(TASKS)}.")
    fitting = FITTING[plan.task]
    names = list(fitting if plan.judges is None else plan.judges)
    for name in names:
        if name in KINDS and name not in fitting:
            raise EvaluationError(
                f"the judge {name} has nothing to say of the task {plan.task}; leave it out."
            )
    clips = choose(
        plan.manifest,
        count=plan.clips,
        split=plan.split,
        speech=plan.speech,
        language=plan.language,
        min_seconds=plan.min_seconds,
        unseen=plan.unseen,
    )
    if plan.plot:
        load("matplotlib", "matplotlib", "the plot (--no-plot goes without)")
    if plan.task == "codec" and plan.opus:
        load("av", "av", "the Opus baseline (--opus without numbers goes without)")
    pairs = default_pairs() if plan.pairs is None else read_pairs(plan.pairs)
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(f"cannot make the directory {plan.out}: {error}.") from error
    panel = Panel.load(names, plan.out / MEMO)
    judge = SpeakerJudge() if plan.task == "clone" and "speaker" in names else None
    loaded = model()
    voices: dict[str, Any] = {
        "speakers": plan.speakers,
        "instruct": plan.instruct,
        "voices": plan.ref_audio,
    }
    rows: list[Row]
    if plan.task == "codec":
        rows = codec_rows(loaded, clips, panel, plan.opus)
    elif plan.task == "tts":
        rows = tts_rows(loaded, clips, panel, plan.speaking, **voices)
    elif plan.task == "clone":
        only = plan.x_vector_only
        rows = clone_rows(loaded, clips, panel, plan.speaking, judge, x_vector_only=only)
    elif plan.task == "description":
        rows = description_rows(loaded, clips, plan.speaking, pairs, speakers=plan.speakers)
    else:
        rows = speed_rows(loaded, clips, plan.speaking, **voices)
    report = Report(plan.task, rows, _about(plan, clips, panel) | (about or {}), _notes(rows))
    report.write(plan.out, plan.plot)
    return report


def _about(plan: Plan, clips: Sequence[Clip], panel: Panel) -> dict[str, Any]:
    import jax

    synthetic = [c.extra.get("synthetic") for c in clips]
    return {
        "clips": len(clips),
        "real clips": synthetic.count(False),
        "synthetic clips": synthetic.count(True),
        "speakers": len({c.speaker for c in clips}),
        "languages": sorted({c.language for c in clips}),
        "sources": sorted({str(c.extra.get("source", "not named")) for c in clips}),
        "split": plan.split,
        "seed": plan.speaking.seed,
        "judges": panel.versions,
        "machine": f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores, "
        f"{platform.machine()}",
    }


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = []
    for row in rows:
        estimates = row.estimates()
        fewer = [f"{n} {e.clips}" for n, e in estimates.items() if e.clips < len(row.clips)]
        if fewer:
            notes.append(
                f"{row.name}: some of the {len(row.clips)} clips have no such score (silent, too "
                f"short or without voice), so there are fewer of: {', '.join(fewer)}."
            )
    return notes
