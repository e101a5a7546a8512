"""Mean opinion score predicted by DNSMOS, from the ONNX models that `speechmos` carries.

Reddy et al. 2022 (P.835, arXiv:2110.01763) and 2021 (P.808, arXiv:2010.15258). It was made to judge
noise suppression: clean speech of any voice scores about 3.3 (overall) and 3.9 (P.808).
"""

from __future__ import annotations

import numpy as np

from qtts_jax.evaluation.judges.package import data_file, load

SAMPLE_RATE = 16_000
_SECONDS = 9.01
_SAMPLES = int(_SECONDS * SAMPLE_RATE)
_STEP = SAMPLE_RATE
# The raw overall score to the scale of the listening test.
_OVERALL = np.poly1d([-0.06766283, 1.11546468, 0.04602535])


class DNSMOSJudge:
    """Predicts overall quality (P.835) and overall quality of another test (P.808), 1 to 5.

    Raises:
        EvaluationError: `speechmos` or `onnxruntime` is not installed.
    """

    def __init__(self) -> None:
        purpose = "the MOS predictor DNSMOS"
        runtime = load("onnxruntime", "onnxruntime", purpose)
        options = runtime.SessionOptions()
        # The threads of a session bind themselves to cores and wait in a loop: those of judges in
        # several processes would take the cores from each other.
        options.intra_op_num_threads = 1
        self._p835, self._p808 = (
            runtime.InferenceSession(
                str(data_file("speechmos", "speechmos", purpose, f"dnsmos_models/{name}.onnx")),
                options,
                providers=["CPUExecutionProvider"],
            )
            for name in ("sig_bak_ovr", "model_v8")
        )

    def score(self, wave: np.ndarray) -> tuple[float, float]:
        """Overall quality and P.808 quality of a wave [T > 0] at 16 kHz."""
        overall, p808 = [], []
        for window in windows(wave):
            (raw,) = self._p835.run(None, {"input_1": window[None]})
            overall.append(float(_OVERALL(raw[0, 2])))
            (raw,) = self._p808.run(None, {"input_1": _log_mel(window[:-160])[None]})
            p808.append(float(raw[0, 0]))
        return float(np.mean(overall)), float(np.mean(p808))


def windows(wave: np.ndarray) -> list[np.ndarray]:
    """Windows of 9.01 s, one a second, of a wave [T]; a shorter one is repeated first."""
    wave = np.clip(wave, -1, 1).astype(np.float32)
    # Doubled until it is long enough, as the original does: what is cut off depends on it.
    while len(wave) < _SAMPLES:
        wave = np.concatenate([wave, wave])
    # The original counts whole seconds first, which leaves out a last window of some lengths.
    count = int(len(wave) // SAMPLE_RATE - _SECONDS) + 1
    return [wave[s : s + _SAMPLES] for s in range(0, count * _STEP, _STEP)]


def _log_mel(wave: np.ndarray) -> np.ndarray:
    """The input [T, 120] of the P.808 model."""
    import librosa

    mel = librosa.feature.melspectrogram(
        y=wave, sr=SAMPLE_RATE, n_fft=321, hop_length=160, n_mels=120
    )
    return ((librosa.power_to_db(mel, ref=np.max) + 40) / 40).T.astype(np.float32)
