"""The stored cases of the 25 Hz encoder and the script that made them belong together."""

import numpy as np
import pytest

from tests.golden_tools.cases_25hz_encoder import CASES, RATE
from tests.support.helpers import GOLDEN

STORED = GOLDEN / "tok25_encode_extra.npz"


def test_stored_outputs_are_complete():
    with np.load(STORED) as stored:
        for case in CASES:
            samples = 320 * case.config["audio_vq_ds_rate"]
            lengths = [-(-n // samples) for n in case.samples]
            for i, n in enumerate(lengths):
                assert stored[f"{case.name}/codes{i}"].shape == (n,)
                assert stored[f"{case.name}/single{i}"].shape == (n,)
            assert len(stored[f"{case.name}/embedded"]) == sum(lengths)
        # Otherwise it would not be told apart whether windows see the padding of the call.
        pairs = [
            (stored[f"{case.name}/codes{i}"], stored[f"{case.name}/single{i}"])
            for case in CASES
            for i in range(len(case.samples))
        ]
        assert any((together != alone).any() for together, alone in pairs)


def test_recordings_have_the_silence_they_ask_for():
    for case in CASES:
        for wave, n, quiet in zip(case.waves(), case.samples, case.silent, strict=True):
            assert wave.shape == (n,) and wave.dtype == np.float32
            assert n <= 5 * RATE
            assert (wave[:quiet] == 0).all()
            assert (wave[quiet:] != 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_official_package_still_gives_the_stored_outputs(case):
    official = pytest.importorskip("official_25hz_encoder", reason="needs the official package")
    with np.load(STORED) as stored:
        for name, array in official.outputs(case).items():
            want = stored[f"{case.name}/{name}"]
            np.testing.assert_allclose(array, want, rtol=0, atol=1e-4, err_msg=name)
