"""Task speed: computing time against audio time, and the wait for the first audio, when warm."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from qtts_jax.data.manifest import Clip
from qtts_jax.evaluation.rows import Row
from qtts_jax.evaluation.tasks.clips import name_of
from qtts_jax.evaluation.tasks.speaking import Speaking, language_of, mode_of
from qtts_jax.io.audio import AudioSource
from qtts_jax.tts.qwen_tts import QwenTTS


def speed_rows(
    tts: QwenTTS,
    clips: Sequence[Clip],
    speaking: Speaking,
    *,
    speakers: Sequence[str] = (),
    instruct: str | None = None,
    voices: Sequence[str] = (),
) -> list[Row]:
    """One row: text to whole audio one at a time, and text to the first streamed samples.

    Every text is spoken once before it is timed, so nothing is compiled inside the clock.

    Args:
        clips: whose texts are spoken.
        speakers, instruct, voices: as of `tts_rows`; a Base checkpoint without `voices` speaks
            like the recordings of the clips.
    """
    row = Row("one at a time", {})
    prompts: list[Any] = []
    mode = mode_of(tts, voices)
    if mode == "voice_clone":
        audios: list[AudioSource] = list(voices) or [str(c.audio) for c in clips]
        prompts = tts.create_voice_clone_prompt(audios, None, True)
    names = list(speakers) or tts.supported_speakers

    def stream(i: int) -> Iterator[np.ndarray]:
        clip, options = clips[i], speaking.options(tts, i)
        language = language_of(tts, clip)
        if mode == "custom_voice":
            name = names[i % len(names)]
            return tts.stream_custom_voice(clip.text, name, language, instruct, **options)
        if mode == "voice_design":
            words = instruct or clip.instruction or ""
            return tts.stream_voice_design(clip.text, words, language, **options)
        prompt = prompts[i % len(prompts)]
        return tts.stream_voice_clone(clip.text, language, voice_clone_prompt=prompt, **options)

    for i, clip in enumerate(tqdm(clips, desc="speed", unit="clip")):
        for _ in stream(i):
            pass
        started, first, samples = time.perf_counter(), 0.0, 0
        for chunk in stream(i):
            first = first or time.perf_counter() - started
            samples += len(chunk)
        took = time.perf_counter() - started
        if samples:
            row.clips[name_of(clip)] = {
                "real_time_factor": (took, samples / tts.sample_rate),
                "first_audio_ms": (1e3 * first, 1),
            }
    return [row]
