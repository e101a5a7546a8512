"""Task tts: held-out texts spoken with preset or described voices, beside their recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from qtts_jax.data.manifest import Clip
from qtts_jax.errors import RequestError
from qtts_jax.evaluation.panel import Panel
from qtts_jax.evaluation.rows import Row, add_rise, score_row
from qtts_jax.evaluation.sample import Sample
from qtts_jax.evaluation.tasks.speaking import (
    Speaking,
    language_of,
    mode_of,
    recorded_samples,
    spoken_sample,
)
from qtts_jax.generation.request import Request
from qtts_jax.tts.qwen_tts import QwenTTS


def tts_rows(
    tts: QwenTTS,
    clips: Sequence[Clip],
    panel: Panel,
    speaking: Speaking,
    *,
    speakers: Sequence[str] = (),
    instruct: str | None = None,
    voices: Sequence[str] = (),
) -> list[Row]:
    """Rows "recordings" and "speech".

    Args:
        clips: whose texts are spoken.
        speakers: preset speakers, in turns; empty for all of the checkpoint.
        instruct: how to speak; a VoiceDesign checkpoint takes that of each clip if None.
        voices: recordings that a checkpoint that clones speaks like, by x-vector, in turns.

    Raises:
        RequestError: the checkpoint cannot speak so.
    """
    request = _requests(tts, clips, speaking, speakers, instruct, voices)
    # All requests first, so that an invalid one fails before anything is scored.
    requests = [request(i) for i in range(len(clips))]

    def samples() -> Iterator[Sample]:
        spoken = speaking.speak(tts, len(clips), requests.__getitem__)
        for clip, speech in zip(clips, spoken, strict=True):
            yield spoken_sample(tts, clip, speech)

    n = len(clips)
    recordings = score_row("recordings", recorded_samples(clips), panel, n)
    row = score_row("speech", samples(), panel, n)
    add_rise(row, recordings)
    return [recordings, row]


def _requests(
    tts: QwenTTS,
    clips: Sequence[Clip],
    speaking: Speaking,
    speakers: Sequence[str],
    instruct: str | None,
    voices: Sequence[str],
) -> Callable[[int], Request]:
    """The request of clip i, for the kind of the checkpoint."""

    def language(i: int) -> str | None:
        return language_of(tts, clips[i])

    mode = mode_of(tts, voices)
    if mode == "custom_voice":
        names = list(speakers) or tts.supported_speakers

        def preset(i: int) -> Request:
            options = speaking.options(tts, i)
            name = names[i % len(names)]
            return tts.prepare_custom_voice(clips[i].text, name, language(i), instruct, **options)

        return preset
    if mode == "voice_design":

        def design(i: int) -> Request:
            words = instruct or clips[i].instruction
            return tts.prepare_voice_design(
                clips[i].text, words, language(i), **speaking.options(tts, i)
            )

        return design
    if not voices:
        raise RequestError(
            "a base checkpoint has no preset speakers: name recordings to speak like "
            "(--ref-audio), or use the task clone."
        )
    items = tts.create_voice_clone_prompt(list(voices), None, True)

    def like(i: int) -> Request:
        item = items[i % len(items)]
        return tts.prepare_voice_clone(clips[i].text, item, language(i), **speaking.options(tts, i))

    return like
