"""Batches of the 25 Hz decoder: codes, mel frames and samples of one place; references."""

import numpy as np
import pytest

from qtts_jax.data import FlowBatches, VocoderBatches, Waves, clip_mels, resampled_waves
from qtts_jax.data.decoder_batches_25hz import SILENCE
from qtts_jax.errors import DataError
from tests.support.speech_files import tone

CODES = (9, 4, 6, 1)
SPEAKERS = ("ada", "bob", "ada", "bob")


def clips():
    """Codes and mel frames that encode clip and place: 100 * clip + code, and frame / 4."""
    codes = [100 * i + np.arange(n, dtype=np.int32)[:, None] for i, n in enumerate(CODES)]
    # The last code of a clip has no full set of frames.
    mels = [np.repeat(c[:, 0], 4)[:-1, None] + np.zeros((1, 3)) for c in codes]
    return codes, [m.astype(np.float16) for m in mels]


def flow_batches(**options):
    codes, mels = clips()
    settings = {
        "rows": 16, "length": 5, "repeats": 4, "reference_frames": 20, "least_reference": 5,
        "threads": 0, **options,
    }  # fmt: skip
    xvectors = np.arange(4, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    references = [mel + np.float16(0.5) for mel in mels]
    return FlowBatches(codes, mels, references, SPEAKERS, xvectors, **settings)


def test_frames_belong_to_their_codes_and_references_to_the_speaker():
    batch = next(flow_batches())
    assert batch["mel"].shape == (16, 20, 3) and batch["reference"].shape == (16, 20, 3)
    seen = set()
    for row in range(16):
        n, real = batch["lengths"][row], batch["reference_frames"][row]
        codes = batch["codes"][row, :n]
        clip = codes[0] // 100
        seen.add(int(clip))
        np.testing.assert_array_equal(codes, codes[0] + np.arange(n))
        np.testing.assert_array_equal(batch["mel"][row, : 4 * n, 0], np.repeat(codes, 4))
        assert not np.any(batch["mel"][row, 4 * n :])
        assert batch["xvector"][row, 0] == clip
        # Ada has two clips long enough, Bob one.
        reference = int(batch["reference"][row, 0, 0]) // 100
        assert batch["reference"][row, 0, 0] % 1 == 0.5
        assert reference == {0: 2, 2: 0, 1: 1}[int(clip)]
        assert real == min(20, 4 * CODES[reference] - 1)
    assert seen == {0, 1, 2}
    np.testing.assert_allclose(batch["codes_per_row"], batch["lengths"].mean())


def test_samples_belong_to_their_frames():
    lengths = [35 * 20, 12 * 20 + 7]
    waves = Waves(
        2000,
        np.arange(2),
        [(10000 * i + np.arange(n) // 20) / 32768 for i, n in enumerate(lengths)],
        np.asarray(lengths),
    )
    mels = [(10000 * i + np.arange(n // 20))[:, None] for i, n in enumerate(lengths)]
    batches = VocoderBatches(waves, mels, samples_per_frame=20, rows=8, frames=15, threads=0)
    batch = next(batches)
    for mel, audio in zip(batch["mel"][..., 0], np.rint(batch["audio"] * 32768), strict=True):
        n = 15 if mel[0] < 10000 else 12
        np.testing.assert_array_equal(audio[: n * 20], np.repeat(mel[:n], 20))
        np.testing.assert_allclose(mel[n:], SILENCE)
        assert not np.any(audio[n * 20 :])
    again = VocoderBatches(waves, mels, samples_per_frame=20, rows=8, frames=15, threads=0)
    again.restore(batches.state())
    np.testing.assert_array_equal(next(again)["audio"], next(batches)["audio"])


def test_mels_have_a_frame_every_10_ms_of_any_rate():
    waves = Waves(8000, np.arange(1), [tone(200, 0.5)], np.asarray([4000]))
    (mel,) = clip_mels(resampled_waves(waves, 16000), 20, progress=False)
    assert mel.shape == (50, 20) and mel.dtype == np.float16
    assert SILENCE - 0.01 < mel.min() < mel.max() < 3


def test_bad_clips_are_refused():
    with pytest.raises(DataError, match="fewer than 50 mel frames"):
        flow_batches(least_reference=50)
    with pytest.raises(DataError, match="raise reference_frames"):
        flow_batches(reference_frames=4)
    with pytest.raises(DataError, match="not 8000 Hz; use resampled_waves"):
        clip_mels(Waves(8000, np.arange(1), [tone(200, 0.5)], np.asarray([4000])), 20)
