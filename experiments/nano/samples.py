"""The samples and the picture of README: three utterances of the shipped voice.

    pip install -e '.[train]'
    python -m experiments.nano.samples --out experiments/results/samples

A preset speaker, a clone of another preset speaker (the x-vector of one of its sentences)
and a voice described in words, each as Ogg Vorbis; and the waveform, the mel spectrogram and the
codes of the first over one time axis. Seeds are fixed: the same checkpoint gives the same samples.
"""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import soundfile

from experiments import command
from qtts_jax import QwenTTS
from qtts_jax.extras import import_extra

SENTENCE = "The weather was so nice this morning that we walked along the river to the old mill."
SPEAKER, CLONED, SEED = "af_heart", "bm_george", 1
MEL_BINS, HOP = 80, 240  # 10 ms


def draw(wave: np.ndarray, rate: int, codes: np.ndarray, out: Path) -> None:
    """Write the picture of one utterance.

    Args:
        wave: [samples] float32.
        rate: Hz.
        codes: [T, Q] int32.
        out: a PNG file.
    """
    seconds = len(wave) / rate
    mel = librosa.feature.melspectrogram(
        y=wave, sr=rate, n_fft=1024, hop_length=HOP, n_mels=MEL_BINS
    )
    figure = import_extra("matplotlib.figure", "train", "the picture").Figure(
        figsize=(10, 5), layout="constrained"
    )
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(1, 2, 1.4))
    top.plot(np.arange(len(wave)) / rate, wave, linewidth=0.4)
    top.set(ylabel="amplitude", title=SENTENCE, ylim=(-1, 1))
    middle.imshow(
        librosa.power_to_db(mel, ref=np.max, top_db=80),  # [M, frames]
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, MEL_BINS),
    )
    middle.set(ylabel="mel bin")
    bottom.imshow(
        codes.T, aspect="auto", extent=(0, seconds, codes.shape[1], 0), interpolation="nearest"
    )
    bottom.set(ylabel="codebook", xlabel="seconds", xlim=(0, seconds))
    figure.savefig(out, dpi=90)


def make(model: Path | None, out: Path) -> None:
    """Synthesize, write the samples and draw the first of them."""
    tts = QwenTTS.from_pretrained(model) if model else QwenTTS.from_pretrained()
    out.mkdir(parents=True, exist_ok=True)

    def save(name: str, wave: np.ndarray) -> None:
        soundfile.write(out / f"{name}.ogg", wave, tts.sample_rate, subtype="VORBIS")
        print(f"{out / name}.ogg: {len(wave) / tts.sample_rate:.2f} s")

    speech = tts.synthesize([tts.prepare_custom_voice(SENTENCE, SPEAKER, "english", seed=SEED)])[0]
    save("preset", speech.wave)
    draw(speech.wave, tts.sample_rate, speech.codes, out / "preset.png")

    recording = tts.generate_custom_voice(SENTENCE, CLONED, "english", seed=SEED)[0][0]
    voice = tts.create_voice_clone_prompt((recording, tts.sample_rate), x_vector_only_mode=True)
    text = "This voice comes from one sentence of another speaker."
    clone = tts.generate_voice_clone(text, "english", voice_clone_prompt=voice, seed=SEED)
    save("clone", clone[0][0])

    text = "This voice was described in words, as low, male and slow."
    instruct = "A man with a low voice, speaking slowly."
    save("design", tts.generate_voice_design(text, instruct, "english", seed=SEED)[0][0])


def main() -> None:
    """Read the options and make the samples."""
    parser = command.parser(__doc__, __file__)
    parser.add_argument("--model", type=Path, help="checkpoint folder (default: the shipped one)")
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder to write")
    args = parser.parse_args()
    make(args.model, args.out)


if __name__ == "__main__":
    raise SystemExit(command.exit_status(__file__, main))
