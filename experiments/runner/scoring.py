"""Library of the ablations: scores of a trained tokenizer and talker on held-out clips."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import command
from experiments.runner.joined import joined
from experiments.runner.measures import ROWS, SPECTRUM_VERSION, TALKER, spectrum
from experiments.runner.recipe import Recipe
from qtts_jax import QwenTTS, data
from qtts_jax.data.splits import TEST
from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.panel import KINDS, Panel, versions_of
from qtts_jax.evaluation.rows import Row, score_row
from qtts_jax.evaluation.sample import Sample, evenly, load_mono_16k
from qtts_jax.evaluation.tasks.clips import name_of
from qtts_jax.evaluation.tasks.codec import codec_rows
from qtts_jax.evaluation.tasks.speaking import Speaking, spoken_sample
from qtts_jax.functional import abstract
from qtts_jax.generation.request import Request
from qtts_jax.io.atomic_files import write_whole
from qtts_jax.io.checkpoint import load_params
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.text.bpe import TextTokenizer
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from qtts_jax.tts.synthesis import Speech

Scores = dict[str, dict[str, dict[str, Sequence[float]]]]
"""By row, measure and clip: numerator and denominator."""
MEMO = "scores.jsonl"


@dataclass(frozen=True)
class Scoring:
    """What is scored and how.

    Attributes:
        judges: kinds of `evaluation.panel`.
        clips: most held-out clips.
        seconds: longest utterance; what has not ended by then counts as without an end.
        seed: of generation.
    """

    judges: tuple[str, ...]
    clips: int
    seconds: float
    seed: int = 0


def available(judges: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Loaded judges by kind, and the reason for each that is not installed."""
    found, missing = {}, {}
    for name in judges:
        try:
            found[name] = KINDS[name].make()
        except EvaluationError as error:
            missing[name] = str(error)
    return found, missing


def held_out(dataset: data.Dataset, count: int, directory: Path) -> list[data.Clip]:
    """Test clips of a dataset as files: at most `count`, evenly spaced."""
    directory.mkdir(parents=True, exist_ok=True)
    clips = []
    for i in evenly(dataset.select(TEST), count):
        record, content = dataset.records[i], dataset.encoded(i)
        suffix = "flac" if content[:4] == b"fLaC" else "ogg"
        path = directory / f"{i:06d}.{suffix}"
        if not path.is_file():
            write_whole(path, content)
        about = (record.speaker, record.language, TEST, record.instruction, record.extra)
        clips.append(data.Clip(i, path, record.text, *about))
    return clips


def score(
    recipe: Recipe, model: Path, dataset: data.Dataset, scoring: Scoring, directory: Path
) -> tuple[Scores, dict[str, str]]:
    """Scores of a talker's checkpoint with its tokenizer, and reasons of judges that are missing.

    Args:
        model: checkpoint folder, loaded as anybody loads one.
        directory: for the recordings that are scored; beside it is the file of known scores.
    """
    judges, missing = available(scoring.judges)
    # A file for all runs, whose recordings are the same.
    memo = directory.parent / MEMO
    panel = Panel({"spectrum": spectrum, **judges}, versions_of(judges) | SPECTRUM_VERSION, memo)
    clips = held_out(dataset, scoring.clips, directory / "clips")
    tts = QwenTTS.from_pretrained(model)
    recordings, resynthesis = codec_rows(tts.speech_tokenizer, clips, panel, opus=())
    spoken, said = dataset, clips
    if recipe.sentences_per_clip > 1:
        place, chosen = directory / "joined", [clip.line for clip in clips]
        spoken = joined(dataset, recipe.sentences_per_clip, place, chosen, TEST)
        said = held_out(spoken, len(spoken), place / "clips")
    speech = speech_row(tts, recipe, said, panel, scoring)
    scores = {
        row: _by_measure(found)
        for row, found in zip(ROWS, (recordings, resynthesis, speech), strict=True)
    }
    forced = forced_scores(recipe, model, spoken, said, scoring)
    scores[TALKER] |= _by_measure(Row(TALKER, forced))
    if recipe.sentences_scored > 1:
        count = recipe.sentences_scored
        whole = Counter(groups_of(clips, count).values())
        groups = {
            clip: group
            for clip, group in groups_of(said, count // recipe.sentences_per_clip).items()
            if whole[group] == count
        }
        scores[TALKER] = {name: added(of, groups) for name, of in scores[TALKER].items()}
    return scores, missing


def groups_of(clips: Sequence[data.Clip], count: int) -> dict[str, str]:
    """The group of each clip by its name, with the groups of `joined`: each `count` of a speaker
    and language in order, of which the last may be shorter.
    """
    before: Counter[str] = Counter()
    found = {}
    for clip in clips:
        voice = f"{clip.speaker} {clip.language}"
        found[name_of(clip)] = f"{voice} {before[voice] // count}"
        before[voice] += 1
    return found


def added(
    scores: Mapping[str, Sequence[float]], groups: Mapping[str, str]
) -> dict[str, Sequence[float]]:
    """Scores by group: sums of the numerators and of the denominators of its clips.

    Args:
        groups: by clip; one that has none is left out.
    """
    found: dict[str, Sequence[float]] = {}
    for name, (numerator, denominator) in scores.items():
        if (group := groups.get(name)) is not None:
            before = found.get(group, (0.0, 0.0))
            found[group] = [before[0] + numerator, before[1] + denominator]
    return found


def speech_row(
    tts: QwenTTS, recipe: Recipe, clips: Sequence[data.Clip], panel: Panel, scoring: Scoring
) -> Row:
    """Held-out texts spoken by their own speakers, in the layout that most training clips had.

    A text may be several sentences (`Recipe.sentences_per_clip`), and has as much more time.

    The second of two passes is timed, so that compiling does not count.
    """
    mix = recipe.talker_batches.mix
    speaking = Speaking(scoring.seed, scoring.seconds * recipe.sentences_per_clip)

    def request(i: int) -> Request:
        return tts.prepare_custom_voice(
            clips[i].text,
            clips[i].speaker,
            clips[i].language if mix.language_tag > 0 else None,
            non_streaming_mode=mix.stream_text <= 0.5,
            **speaking.options(tts, i),
        )

    list(speaking.speak(tts, len(clips), request))
    began = time.perf_counter()
    spoken: list[Speech] = list(speaking.speak(tts, len(clips), request))
    seconds = (time.perf_counter() - began) / len(clips)

    def samples() -> Iterator[Sample]:
        for clip, speech in zip(clips, spoken, strict=True):
            sample = spoken_sample(tts, clip, speech, voice=load_mono_16k(clip.audio))
            length = len(speech.wave) / tts.sample_rate
            known = {"rtf": (seconds, length)} if length else {}
            yield replace(sample, known={**sample.known, **known})

    return score_row(TALKER, samples(), panel, len(clips))


def forced_scores(
    recipe: Recipe,
    model: Path,
    dataset: data.Dataset,
    clips: Sequence[data.Clip],
    scoring: Scoring,
) -> dict[str, dict[str, tuple[float, float]]]:
    """Losses and accuracies on the recorded frames of each clip (teacher forcing).

    All frames train nothing here, so the inputs have no noise and every frame counts.
    """
    codes = data.encode_dataset(dataset, model, progress=False)
    text = TextTokenizer.from_dir(model)
    options = {
        **recipe.talker_options,
        "code_noise": 0.0, "alignment_weight": 0.0, "predictor_frames": None,
        "dtype": "float32",
    }  # fmt: skip
    task = TalkerTask(TalkerTaskConfig(recipe.model, **options))
    params = load_params(model, abstract(TTSModel, recipe.model)[1])
    groups, extras = jax.jit(task.init)(jax.random.key(0), params)
    loss = jax.jit(lambda *args: task.loss(*args)[1])
    # One clip a batch, in the length of the longest.
    config = replace(
        recipe.talker_batches, positions=recipe.talker_batches.positions[-1:], batch_positions=1,
        batches_per_bucket_run=1, rare_speaker_repeats=1, seed=scoring.seed,
    )  # fmt: skip
    found = {}
    for clip in clips:
        (batch,) = data.TalkerBatches(
            recipe.model, dataset, codes, text, config, indices=[clip.line], threads=0, stop=1
        )
        metrics = {n: float(x) for n, x in loss(groups, extras, batch, jax.random.key(0)).items()}
        frames = int(np.sum(batch["frames"]))
        first = frames + int(np.sum(batch["ends"]))
        rest = frames * (recipe.tokenizer.codebooks - 1)
        found[name_of(clip)] = {
            "loss_first": (metrics["ce_first"] * first, first),
            "accuracy_first": (metrics["accuracy_first"] * first, first),
        }
        if "ce_rest" in metrics:
            found[name_of(clip)] |= {
                "loss_rest": (metrics["ce_rest"] * rest, rest),
                "accuracy_rest": (metrics["accuracy_rest"] * rest, rest),
            }
    return found


def _by_measure(row: Row) -> dict[str, dict[str, Sequence[float]]]:
    """Scores of a row by measure and clip, rounded to what a table could show."""
    out: dict[str, dict[str, Sequence[float]]] = {}
    for clip, scores in row.clips.items():
        for name, (numerator, denominator) in scores.items():
            out.setdefault(name, {})[clip] = [float(f"{numerator:.6g}"), denominator]
    return out


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
