"""Stand-ins for models and judges, so that tasks can be tested by themselves."""

import json
from types import SimpleNamespace

import numpy as np
import soundfile

from qtts_jax.evaluation.panel import Panel, transcript_scores
from qtts_jax.tts.synthesis import Speech

RATE = 16_000
FRAME = 1_280  # samples; 12.5 frames a second


def voice(hertz, seconds):
    t = np.arange(round(seconds * RATE)) / RATE
    return 0.1 * sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 7)).astype(np.float32)


def write_manifest(directory, clips):
    """Clips as (speaker, text, hertz, more fields) of 1 s each."""
    lines = []
    for i, (speaker, text, hertz, more) in enumerate(clips):
        soundfile.write(directory / f"{i}.wav", voice(hertz, 1.0), RATE)
        fields = {"audio": f"{i}.wav", "text": text, "speaker": speaker, "language": "english"}
        lines.append(json.dumps(fields | more))
    path = directory / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def panel(**judges):
    """A panel whose transcripts are what the sample should say."""
    words = {"asr": lambda s: transcript_scores(s.text, s.text, s.language)}
    return Panel(words | judges)


class Embedder:
    """A speaker is its pitch: the angle of a vector."""

    def embed(self, wave):
        spectrum = np.abs(np.fft.rfft(wave))
        angle = np.argmax(spectrum) * RATE / len(wave) / 200
        return np.array([np.cos(angle), np.sin(angle)])


class TTS:
    """Speaks with a pitch and a length that the request names."""

    sample_rate = RATE
    supported_speakers = ("ann", "bob")
    supported_languages = ("auto", "english")
    speech_tokenizer = SimpleNamespace(samples_per_frame=FRAME)

    def __init__(self, mode, pitch=lambda words: 150, frames=lambda words: 12):
        self.mode, self.modes, self.requests = mode, (mode,), []
        self._pitch, self._frames = pitch, frames

    def _prepare(self, text, voice, language, **options):
        self.requests.append((text, voice, language, options))
        return (text, voice, options)

    def prepare_custom_voice(self, text, speaker, language, instruct, **options):
        return self._prepare(text, instruct or speaker, language, **options)

    def prepare_voice_design(self, text, instruct, language, **options):
        return self._prepare(text, instruct, language, **options)

    def prepare_voice_clone(self, text, item, language, **options):
        return self._prepare(text, item, language, **options)

    def create_voice_clone_prompt(self, audios, texts, only):
        return [str(a) for a in audios]

    def synthesize(self, requests):
        out = []
        for _, words, options in requests:
            wanted, most = self._frames(words), options["max_new_tokens"] - 1
            frames = min(wanted, most)
            wave = voice(self._pitch(words), frames * FRAME / RATE)
            out.append(Speech(np.zeros((frames, 2), np.int32), wave, ended=wanted < most))
        return out

    def _stream(self, words, options):
        wave = self.synthesize([(None, words, options)])[0].wave
        yield from np.split(wave, 3)

    def stream_custom_voice(self, text, speaker, language, instruct, **options):
        return self._stream(speaker, options)
