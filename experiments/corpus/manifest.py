"""The manifest of a corpus: one JSON line a clip, written from what lies on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.corpus.asterisk_prompts import plan as asterisk_plan
from experiments.corpus.passages import FOLDER, passage_row, planned_passages
from experiments.corpus.pitch_shift import varied_rows
from experiments.corpus.plan import PIPER_VOICE, read_jobs
from experiments.corpus.split import UNSEEN_VOICES, corpus_split
from experiments.corpus.synthesis.cpu_worker import DRAWN
from experiments.corpus.synthesis.gpu_worker import ALIGNMENTS
from qtts_jax.data.splits import SPLITS, TEST, same_text
from qtts_jax.errors import DataError
from qtts_jax.io.atomic_files import write_whole

Row = dict[str, Any]

# Whisper base by itself mishears rare words; a clip of worse than this is broken or off its text.
MAX_WER = 0.25
REQUIRED = ("audio", "text", "speaker", "language", "source", "licence", "synthetic", "split")


def synthetic_row(job: Row) -> Row:
    """The manifest fields of a synthesised clip."""
    return {
        "audio": f"audio/{job['engine']}/{job['id']}.ogg",
        "text": job["text"],
        "speaker": job["voice"],
        # Kokoro's voices are named by country and sex (af_, am_, ..., drawn ones af~); Piper's joe
        # is a man.
        "sex": "female" if job["voice"][1] == "f" else "male",
        "language": "english",
        "source": job["source"],
        "licence": job["licence"],
        "text_source": job["text_source"],
        "text_licence": job["text_licence"],
        "synthetic": True,
        "split": corpus_split(job["text"], job["voice"]),
        "speed": job["speed"],
        "unseen_speaker": job["voice"] in UNSEEN_VOICES,
        # No person has this voice, so none should be named after it.
        "derived": DRAWN in job["voice"]
        or (job["engine"] == "piper" and job["voice"] != PIPER_VOICE),
    }


def planned_rows(corpus: Path) -> list[Row]:
    """Rows of everything that is planned, in a fixed order, whether or not it has been made."""
    rows = []
    unpacked = corpus / "packages"
    if (unpacked / "asterisk-core-sounds-en").exists():
        rows += [row for _, row in asterisk_plan(unpacked)]
    for jobs in sorted((corpus / "jobs").glob("*.jsonl")):
        rows += [synthetic_row(job) for job in read_jobs(jobs)]
    return rows


def passage_rows(corpus: Path) -> list[Row]:
    """Rows of the passages that have been made."""
    if not (corpus / FOLDER / ALIGNMENTS).exists():
        return []
    return [passage_row(each, synthetic_row(each.parts[0])) for each in planned_passages(corpus)]


def source_rows(corpus: Path) -> list[Row]:
    """Rows of the clips whose voices are varied: all but Piper's, which vary by themselves."""
    rows = [row for row in planned_rows(corpus) if not row["audio"].startswith("audio/piper/")]
    return [next(made_rows(corpus, [row]), row) for row in rows]


def made_rows(corpus: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows whose audio exists, under its name: `.flac` is what a GPU has spoken.

    It comes before an `.ogg` of the same job, for the alignment is that of the GPU's clip.
    """
    for row in rows:
        for name in (str(Path(row["audio"]).with_suffix(".flac")), row["audio"]):
            if (corpus / name).exists():
                yield row | {"audio": name}
                break


def write_manifest(corpus: Path, max_wer: float = MAX_WER) -> list[Row]:
    """Write `manifest.jsonl`: planned clips whose audio exists, with seconds and WER (or null).

    Synthetic training clips whose word error rate by Whisper is above `max_wer` are left out; test
    clips stay, for a test set is not chosen by its score.

    Raises:
        DataError: audio cannot be read, or a field is missing.
    """
    import soundfile

    error_rates = read_wer(corpus / "wer.jsonl")
    aligned = {
        f"audio/{engine}/{clip}.flac": row
        for engine in ("piper", "kokoro", "passages")
        for clip, row in read_lines(corpus / f"audio/{engine}" / ALIGNMENTS, "id").items()
    }
    lengths = _known_lengths(corpus / "manifest.jsonl")
    lengths |= {audio: row["seconds"] for audio, row in aligned.items()}
    rows = []
    varied = []
    for source, row in varied_rows(source_rows(corpus)):
        varied.append(row)
        if source["audio"] in error_rates:  # what is wrong with a clip is wrong with its variations
            error_rates[row["audio"]] = error_rates[source["audio"]]
    planned = planned_rows(corpus) + varied + passage_rows(corpus)
    for row in made_rows(corpus, planned):
        path = corpus / row["audio"]
        if row["audio"] not in lengths:
            try:
                info = soundfile.info(path)
            except soundfile.LibsndfileError as error:
                raise DataError(f"{path} cannot be read; delete it and run again.") from error
            lengths[row["audio"]] = round(info.frames / info.samplerate, 3)
        wer = error_rates.get(row["audio"])
        if row["synthetic"] and row["split"] != TEST and wer is not None and wer > max_wer:
            continue
        row |= {"seconds": lengths[row["audio"]], "wer": wer}
        if alignment := aligned.get(row["audio"], {}).get("alignment"):
            row["alignment"] = alignment
        rows.append(row)
    rows = without_leaks(rows, planned)
    check(rows)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(corpus / "manifest.jsonl", lines.encode())
    return rows


def without_leaks(rows: Iterable[Row], planned: Sequence[Row]) -> list[Row]:
    """The rows whose text is in one split: what is tested anywhere is trained on nowhere.

    It takes out words that two languages share (Italian is all for tests), and texts that differ
    in spaces only. The plan decides, not what has been made of it: other machines or other calls
    may make the test clips.
    """
    strictest: dict[str, str] = {}
    for split in SPLITS:  # the strictest one last
        strictest |= {same_text(row["text"]): split for row in planned if row["split"] == split}
    return [row for row in rows if strictest[same_text(row["text"])] == row["split"]]


def check(rows: Iterable[Row]) -> None:
    """Raise a `DataError` that names the line of the first bad row."""
    seen: dict[str, int] = {}
    splits: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        missing = [field for field in REQUIRED if field not in row or row[field] in ("", None)]
        if missing:
            raise DataError(f"line {number} of the manifest lacks {', '.join(missing)}.")
        if row["split"] not in SPLITS:
            raise DataError(f"line {number} of the manifest has the split {row['split']!r}.")
        if row["audio"] in seen:
            first = seen[row["audio"]]
            raise DataError(f"lines {first} and {number} of the manifest name {row['audio']}.")
        seen[row["audio"]] = number
        if splits.setdefault(same_text(row["text"]), row["split"]) != row["split"]:
            raise DataError(f"line {number} of the manifest has the text of another split.")


def read_wer(path: Path) -> dict[str, float]:
    """audio -> word error rate."""
    return {audio: row["wer"] for audio, row in read_lines(path, "audio").items()}


def read_lines(path: Path, key: str) -> dict[str, Row]:
    """The lines of a file by a field; a last line that a kill cut short is passed over."""
    found: dict[str, Row] = {}
    if not path.exists():
        return found
    for line in path.read_text("utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            row = json.loads(line)
            found[row[key]] = row
    return found


def _known_lengths(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    rows = map(json.loads, path.read_text("utf-8").splitlines())
    return {row["audio"]: row["seconds"] for row in rows}


def summary(rows: Iterable[Row]) -> list[str]:
    """Minutes and clips of every source and split, a line each."""
    totals: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        totals.setdefault((row["source"], row["split"]), []).append(row["seconds"])
    return [
        f"{source:28} {split:10} {len(lengths):6} clips {sum(lengths) / 60:8.1f} min"
        for (source, split), lengths in sorted(totals.items())
    ]
