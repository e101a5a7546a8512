"""Task clone: texts in the voices of speakers that are not in the training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from qtts_jax.data.manifest import Clip
from qtts_jax.errors import EvaluationError
from qtts_jax.evaluation.judges.speaker import SpeakerJudge
from qtts_jax.evaluation.panel import Panel, usable
from qtts_jax.evaluation.rows import Row, add_rise, score_row
from qtts_jax.evaluation.sample import Sample, load_mono_16k
from qtts_jax.evaluation.tasks.speaking import (
    Speaking,
    language_of,
    recorded_samples,
    spoken_sample,
)
from qtts_jax.generation.request import Request
from qtts_jax.tts.qwen_tts import QwenTTS

_MODE_IN_CONTEXT, _MODE_XVECTOR = "in context", "x-vector"


def clone_rows(
    tts: QwenTTS,
    clips: Sequence[Clip],
    panel: Panel,
    speaking: Speaking,
    judge: SpeakerJudge | None,
    *,
    x_vector_only: bool = True,
) -> list[Row]:
    """Rows "recordings" and "clone".

    The voice of each clip reads the text of the speaker's next clip, so that the same speaker's own
    recording of that text stands beside it. Similarity is to the reference; `sim_other` is the
    similarity to the nearest reference of another speaker of the same language, and the details
    give the best pair of recordings of two different speakers.

    Args:
        clips: references; speakers with one clip only are left out.
        judge: the model of similarity to other speakers; None to leave that out.
        x_vector_only: clone by x-vector; else in context, with the recording and its words.

    Raises:
        RequestError: not a Base checkpoint.
        EvaluationError: no speaker has two clips of different texts.
    """
    references, targets = pair(clips)
    prompts = tts.create_voice_clone_prompt(
        [str(c.audio) for c in references], [c.text for c in references], x_vector_only
    )
    references_16k = [load_mono_16k(c.audio) for c in references]
    embedded = [] if judge is None else [judge.embed(w) for w in references_16k]

    def request(i: int) -> Request:
        return tts.prepare_voice_clone(
            targets[i].text, prompts[i], language_of(tts, targets[i]), **speaking.options(tts, i)
        )

    def compared(i: int, sample: Sample) -> Sample:
        if judge is not None and usable(sample.wave):
            mine = judge.embed(sample.wave)
            own = float(mine @ embedded[i])
            others = [float(mine @ embedded[j]) for j in _others(references, i)]
            if others:
                sample.known["sim_other"] = (max(others), 1)
                sample.known["own_nearest"] = (float(own > max(others)), 1)
        return sample

    def clones() -> Iterator[Sample]:
        spoken = speaking.speak(tts, len(targets), request)
        for i, (clip, speech) in enumerate(zip(targets, spoken, strict=True)):
            sample = spoken_sample(tts, clip, speech, references_16k[i], load_mono_16k(clip.audio))
            yield compared(i, sample)

    n = len(targets)
    recorded = (compared(i, s) for i, s in enumerate(recorded_samples(targets, references_16k)))
    recordings = score_row("recordings", recorded, panel, n)
    recordings.details = {"speakers": len({c.speaker for c in references})}
    if judge is not None:
        recordings.details |= _pairs(references, embedded)
    row = score_row("clone", clones(), panel, n)
    row.details = {"kind": _MODE_XVECTOR if x_vector_only else _MODE_IN_CONTEXT}
    add_rise(row, recordings)
    return [recordings, row]


def pair(clips: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """References and, for each, the next clip of its speaker with another text."""
    references, targets = [], []
    for i, clip in enumerate(clips):
        later = [*clips[i + 1 :], *clips[:i]]
        same = [c for c in later if c.speaker == clip.speaker and c.text != clip.text]
        if same:
            references.append(clip)
            targets.append(same[0])
    if not references:
        raise EvaluationError(
            "cloning needs speakers with at least two clips of different texts; add clips."
        )
    return references, targets


def _others(references: Sequence[Clip], i: int) -> list[int]:
    """Other speakers of the same language: similarity means little across languages."""
    mine = references[i]
    return [
        j
        for j, other in enumerate(references)
        if other.speaker != mine.speaker and other.language == mine.language
    ]


def _pairs(references: Sequence[Clip], embedded: Sequence[np.ndarray]) -> dict[str, float]:
    """How alike different speakers are: the most alike clips of two, and the mean over clips."""
    between = [
        float(embedded[i] @ embedded[j])
        for i in range(len(references))
        for j in _others(references, i)
    ]
    if not between:
        return {}
    return {
        "best_other_speaker_pair": max(between),
        "mean_other_speaker_pair": float(np.mean(between)),
    }
