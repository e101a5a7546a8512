"""Runs every program that the audio and the references of a 25 Hz checkpoint need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from qtts_jax.configs.tokenizer_25hz import ENCODER_HOP, ENCODER_SAMPLE_RATE
from qtts_jax.errors import CheckpointError, RequestError
from qtts_jax.speech_tokenizer.programs_25hz_decode import REFERENCE_FRAMES
from qtts_jax.speech_tokenizer.reference_voice import ReferenceVoice
from qtts_jax.tts.qwen_tts import QwenTTS

# Seconds of the shortest recording; each further one is twice as long, as padded lengths are.
SHORTEST = 0.5


def every_block_program(tts: QwenTTS, max_reference_seconds: float) -> Iterator[str]:
    """Run the decoder for voices of all lengths, and the encoders if recordings are cloned.

    Yields:
        a name before each run.
    """
    codec: Any = tts.speech_tokenizer
    placeholder = codec.placeholder_voice()
    lengths = {len(voice.ref_mel) for voice in (placeholder, *codec.voices.values())}
    if "voice_clone" in tts.modes:
        yield "references"
        if _encode_recordings(tts, max_reference_seconds):
            most = int(max_reference_seconds * ENCODER_SAMPLE_RATE) // ENCODER_HOP + 1
            lengths |= {*range(REFERENCE_FRAMES, most, REFERENCE_FRAMES), most}
    padded = sorted({-(-length // REFERENCE_FRAMES) * REFERENCE_FRAMES for length in lengths})
    for length in padded:
        yield f"voices of {length} frames"
        mel = np.zeros((length, placeholder.ref_mel.shape[1]), np.float32)
        codec.host_decoder(ReferenceVoice(placeholder.xvector, mel))
    for look_ahead in (codec.look_ahead, None):  # streamed and whole, see `BlockAudio`
        yield "blocks of audio"
        decoder = codec.host_decoder(placeholder, look_ahead=look_ahead)
        decoder.push(np.zeros(codec.first_chunks[-1], np.int32))
        decoder.finish()


def _encode_recordings(tts: QwenTTS, max_reference_seconds: float) -> bool:
    """Encode noise of all padded lengths; False where the checkpoint computes no voices."""
    codec = tts.speech_tokenizer
    rate, seconds = codec.input_sample_rate, [min(SHORTEST, max_reference_seconds)]
    while seconds[-1] < max_reference_seconds:
        seconds.append(min(2 * seconds[-1], max_reference_seconds))
    noise = 0.1 * np.random.default_rng(0).standard_normal(int(seconds[-1] * rate))
    for length in seconds:
        recording = noise[: int(length * rate)].astype(np.float32), rate
        try:
            tts.encode_references([recording], ["Words."], [False], [None])
        except (CheckpointError, RequestError):  # no CAM++: recordings of clients are refused, too
            return False
    return True
