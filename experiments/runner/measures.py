"""Library of the ablations: what tables show of a run, and the spectral distance of two recordings.

A score of a clip is a numerator and a denominator, as in `evaluation.bootstrap`.
"""

from __future__ import annotations

from dataclasses import dataclass

import librosa
import numpy as np

from experiments import command
from qtts_jax.evaluation.bootstrap import Score
from qtts_jax.evaluation.sample import SAMPLE_RATE, Sample

RECORDINGS, RESYNTHESIS, TALKER = ROWS = ("recordings", "resynthesis", "talker")


@dataclass(frozen=True)
class Measure:
    """A column of a table.

    Attributes:
        row: what is scored: one of `ROWS`.
        name: key of the score.
        label: with its unit.
        better: "higher" or "lower".
        scale: factor of the number that people are shown.
        digits: behind the point.
        judge: kind of `evaluation.panel` that it needs; None for none.
    """

    row: str
    name: str
    label: str
    better: str
    scale: float = 1.0
    digits: int = 2
    judge: str | None = None


MEASURES = (
    Measure(RESYNTHESIS, "spectrum", "spectral distance, dB", "lower"),
    Measure(RESYNTHESIS, "stoi", "STOI", "higher", digits=3, judge="stoi"),
    Measure(RESYNTHESIS, "pesq_wb", "PESQ-WB", "higher", judge="pesq"),
    Measure(RECORDINGS, "wer", "WER % of recordings", "lower", 100, 1, "asr"),
    Measure(RESYNTHESIS, "wer", "WER % of resynthesis", "lower", 100, 1, "asr"),
    Measure(RESYNTHESIS, "sim", "SIM of resynthesis", "higher", digits=3, judge="speaker"),
    Measure(TALKER, "loss_first", "loss of codebook 0, nats a code", "lower"),
    Measure(TALKER, "loss_rest", "loss of other codebooks, nats a code", "lower"),
    Measure(TALKER, "accuracy_first", "accuracy of codebook 0, %", "higher", 100, 1),
    Measure(TALKER, "accuracy_rest", "accuracy of other codebooks, %", "higher", 100, 1),
    Measure(TALKER, "wer", "WER % of speech", "lower", 100, 1, "asr"),
    Measure(TALKER, "sim", "SIM of speech", "higher", digits=3, judge="speaker"),
    Measure(TALKER, "no_eos", "no end of speech, %", "lower", 100, 1),
    Measure(TALKER, "rtf", "compute / audio time", "lower", digits=3),
)

_WINDOW, _HOP, _MELS = 1024, 256, 80
_RANGE_DB = 60.0  # quieter than this below the loudest band counts as this
SPECTRUM_VERSION = {"spectrum": repr((_WINDOW, _HOP, _MELS, _RANGE_DB))}
"""What the spectral distance depends on, for a cache of scores."""


def spectrum(sample: Sample) -> dict[str, Score]:
    """Mean absolute difference of log-mel spectra (80 bands, 64 ms every 16 ms), dB.

    Both are cut off 60 dB below the loudest band of the recording.
    """
    if sample.aligned is None:
        return {}
    theirs = _mel_db(sample.aligned)
    floor = theirs.max() - _RANGE_DB
    away = np.abs(np.maximum(_mel_db(sample.wave), floor) - np.maximum(theirs, floor))
    return {"spectrum": (float(away.mean()), 1)}


def _mel_db(wave: np.ndarray) -> np.ndarray:
    """Log-mel power [M, T], dB."""
    power = librosa.feature.melspectrogram(
        y=wave, sr=SAMPLE_RATE, n_fft=_WINDOW, hop_length=_HOP, n_mels=_MELS
    )
    return 10 * np.log10(np.maximum(power, 1e-10))


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
