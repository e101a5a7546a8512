import numpy as np
import pytest

from experiments.nano import teacher_speech
from experiments.nano.teacher_speech import RATE, teacher_voices
from qtts_jax.errors import EvaluationError


def test_the_voices_are_those_that_the_teacher_has(tmp_path):
    np.savez(tmp_path / "voices.npz", af_heart=np.zeros(1), bm_lewis=np.zeros(1))
    assert teacher_voices(tmp_path, ["joe", "bm_lewis", "af_heart"]) == ["bm_lewis", "af_heart"]
    with pytest.raises(EvaluationError, match="Kokoro has none of the voices joe"):
        teacher_voices(tmp_path, ["joe"])
    with pytest.raises(EvaluationError, match=r"has no voices .*--steps fetch"):
        teacher_voices(tmp_path / "none", ["af_heart"])


def test_each_text_is_read_by_its_voice_without_silence(monkeypatch, tmp_path):
    seen = []

    class Phonemes:
        def __call__(self, texts, accent):
            return [[len(texts[0]), accent == "en-gb"] * (300 if texts == ["Long."] else 1)]

    def kokoro(models, threads):
        def speak(job):
            seen.append(job)
            return np.pad(np.full(RATE, 0.5, np.float32), RATE)

        return speak

    monkeypatch.setattr(teacher_speech, "KokoroPhonemes", Phonemes)
    monkeypatch.setattr(teacher_speech.cpu_worker, "kokoro", kokoro)
    spoken = teacher_speech.teacher_speech(tmp_path, ["One.", "Three."], ["af_heart", "bm_lewis"])
    assert [job["tokens"] for job in seen] == [[4, False], [6, True]]
    assert [job["voice"] for job in seen] == ["af_heart", "bm_lewis"]
    with pytest.raises(EvaluationError, match="'Long.'... has 600 phonemes"):
        teacher_speech.teacher_speech(tmp_path, ["Long."], ["af_heart"])
    assert all(len(s.wave) == round(1.2 * RATE) and s.ended for s in spoken)
