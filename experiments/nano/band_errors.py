"""Where in the spectrum a tokenizer loses quality: scores with one part taken from the recording.

    pip install -e '.[eval]'
    python -m experiments.nano.band_errors MODEL --manifest corpus/manifest.jsonl \
        --language italian --out bands

Held-out clips are encoded and decoded. Each further row scores the decoded speech with everything
below a frequency replaced by the recording, or with the spectral envelope of the recording and the
fine structure of the decoder. It prints the table and writes bands.json and bands.md beside
the scores of the clips. Expected: scores that rise from row to row; the row with the largest step
names the part that codes or decoder should improve first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np

from experiments import command
from qtts_jax.evaluation.panel import Panel
from qtts_jax.evaluation.report import Report
from qtts_jax.evaluation.rows import score_row
from qtts_jax.evaluation.run import MEMO
from qtts_jax.evaluation.sample import SAMPLE_RATE, Sample
from qtts_jax.evaluation.tasks.clips import choose
from qtts_jax.evaluation.tasks.codec import tokenized
from qtts_jax.speech_tokenizer.base import SpeechTokenizer

Correction = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Long windows separate the harmonics of neighbouring bands; the envelope uses 60 mel bins of short
# windows, which do not resolve harmonics.
_BAND_WINDOW, _ENVELOPE_WINDOW, _ENVELOPE_BINS = 1024, 512, 60


def below(hertz: float) -> Correction:
    """The correction that replaces everything below a frequency by the recording."""
    bins = round(hertz / SAMPLE_RATE * _BAND_WINDOW)

    def correct(recorded: np.ndarray, decoded: np.ndarray) -> np.ndarray:
        theirs, mine = (_spectrum(wave, _BAND_WINDOW) for wave in (recorded, decoded))
        mine[:bins] = theirs[:bins]
        return _wave(mine, _BAND_WINDOW, len(decoded))

    return correct


def envelope(recorded: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Scales each mel band of the decoded speech [samples] to its level in the recording."""
    bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=_ENVELOPE_WINDOW, n_mels=_ENVELOPE_BINS)
    theirs, mine = (_spectrum(wave, _ENVELOPE_WINDOW) for wave in (recorded, decoded))
    levels = [np.log(bank @ np.square(np.abs(x)) + 1e-6) / 2 for x in (theirs, mine)]
    shares = bank.T / np.maximum(bank.sum(0)[:, None], 1e-9)
    return _wave(mine * np.exp(shares @ (levels[0] - levels[1])), _ENVELOPE_WINDOW, len(decoded))


def _spectrum(wave: np.ndarray, window: int) -> np.ndarray:
    return librosa.stft(wave, n_fft=window, hop_length=window // 4)


def _wave(spectrum: np.ndarray, window: int, samples: int) -> np.ndarray:
    wave = librosa.istft(spectrum, n_fft=window, hop_length=window // 4, length=samples)
    return wave.astype(np.float32)


def run(args: argparse.Namespace) -> Report:
    """The report: one row for the tokenizer and one per correction."""
    clips = choose(args.manifest, split=args.split, language=args.language, count=args.clips)
    args.out.mkdir(parents=True, exist_ok=True)
    panel = Panel.load(args.judges, args.out / MEMO)
    plain = list(tokenized(SpeechTokenizer.from_pretrained(args.model), clips))
    corrections: dict[str, Correction] = {"recorded envelope": envelope}
    corrections |= {f"recorded below {hertz:g} Hz": below(hertz) for hertz in args.below}

    def corrected(correct: Correction) -> Iterator[Sample]:
        for sample in plain:
            assert sample.aligned is not None
            yield replace(sample, wave=correct(sample.aligned, sample.wave))

    rows = [score_row("tokenizer", plain, panel, len(plain))]
    rows += [
        score_row(name, corrected(correct), panel, len(plain))
        for name, correct in corrections.items()
    ]
    about = {"model": args.model.name, "clips": len(plain), "judges": panel.versions}
    return Report("bands", rows, about)


def main() -> None:
    """Measure and write."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("model", type=Path, help="checkpoint of a speech tokenizer")
    parser.add_argument("--manifest", type=Path, required=True, help="JSONL of clips")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report")
    parser.add_argument("--split", default="test", help="split of the clips, or all")
    parser.add_argument("--language", help="language of the clips (default: all)")
    parser.add_argument("--clips", type=int, default=20, help="number of clips")
    parser.add_argument(
        "--below", type=float, nargs="+", default=[500, 1000, 2000], help="frequencies in Hz"
    )
    parser.add_argument("--judges", nargs="+", default=["pesq", "stoi"], help="metrics")
    args = parser.parse_args()
    report = run(args)
    report.write(args.out, plot=False)
    print(report.markdown())


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
