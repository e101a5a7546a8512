"""Where a tokenizer loses quality: its speech with one part of the spectrum put right.

    pip install -e '.[eval]'
    python -m experiments.nano.band_errors MODEL --manifest corpus/manifest.jsonl \
        --language italian --out bands

Held-out clips are encoded and decoded. Each further row gives the judges the decoded speech with
all that lies below a frequency taken from the recording, or with the recording's spectral envelope
over the decoder's own fine structure. It prints the table and writes bands.json and bands.md beside
the scores of the clips. Expected: scores that rise from row to row; the row with the largest step
names the part that codes or decoder have to learn first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np

from experiments.nano.report_command import finish
from qtts_jax.evaluation.panel import Panel
from qtts_jax.evaluation.report import Report
from qtts_jax.evaluation.rows import score_row
from qtts_jax.evaluation.run import MEMO
from qtts_jax.evaluation.sample import SAMPLE_RATE, Sample
from qtts_jax.evaluation.tasks.clips import choose
from qtts_jax.evaluation.tasks.codec import tokenized
from qtts_jax.speech_tokenizer.base import SpeechTokenizer

Mend = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Long windows part the harmonics of a band from those of the next one; the envelope has 60 bins of
# short ones, which do not tell harmonics.
_BAND_WINDOW, _ENVELOPE_WINDOW, _ENVELOPE_BINS = 1024, 512, 60


def below(hertz: float) -> Mend:
    """Takes all below a frequency from the recording."""
    bins = round(hertz / SAMPLE_RATE * _BAND_WINDOW)

    def mend(recorded: np.ndarray, decoded: np.ndarray) -> np.ndarray:
        theirs, mine = (_spectrum(wave, _BAND_WINDOW) for wave in (recorded, decoded))
        mine[:bins] = theirs[:bins]
        return _wave(mine, _BAND_WINDOW, len(decoded))

    return mend


def envelope(recorded: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Gives the decoded fine structure the levels of the recording, mel band by mel band."""
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
    """All rows."""
    clips = choose(args.manifest, split=args.split, language=args.language, count=args.clips)
    args.out.mkdir(parents=True, exist_ok=True)
    panel = Panel.load(args.judges, args.out / MEMO)
    plain = list(tokenized(SpeechTokenizer.from_pretrained(args.model), clips))
    mends: dict[str, Mend] = {"recorded envelope": envelope}
    mends |= {f"recorded below {hertz:g} Hz": below(hertz) for hertz in args.below}

    def mended(mend: Mend) -> Iterator[Sample]:
        for sample in plain:
            assert sample.aligned is not None
            yield replace(sample, wave=mend(sample.aligned, sample.wave))

    rows = [score_row("tokenizer", plain, panel, len(plain))]
    rows += [score_row(name, mended(mend), panel, len(plain)) for name, mend in mends.items()]
    about = {"model": args.model.name, "clips": len(plain), "judges": panel.versions}
    return Report("bands", rows, about)


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="checkpoint of a speech tokenizer")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="test", help="or all")
    parser.add_argument("--language", help="of the clips (default: all)")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--below", type=float, nargs="+", default=[500, 1000, 2000], help="Hz")
    parser.add_argument("--judges", nargs="+", default=["pesq", "stoi"])
    args = parser.parse_args()
    return finish("codec_bands", lambda: run(args), args.out)


if __name__ == "__main__":
    raise SystemExit(main())
