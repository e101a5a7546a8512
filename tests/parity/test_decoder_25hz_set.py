"""The stored decodes of the 25 Hz tokenizer and the script that made them belong together."""

import numpy as np
import pytest

from tests.golden_tools.cases_25hz_decoder import CASES
from tests.support.helpers import GOLDEN

STORED = GOLDEN / "tok25_decode_extra.npz"


def test_every_case_is_stored():
    with np.load(STORED) as stored:
        names = {name.split("/")[0] for name in stored}
        assert names == {case.name for case in CASES}
        for case in CASES:
            dit, vocoder = case.config["dit_config"], case.config["bigvgan_config"]
            frames = max(case.lengths) * dit["repeats"]
            rows = len(case.lengths)
            assert stored[f"{case.name}/mel"].shape == (rows, dit["mel_dim"], frames)
            samples = frames * int(np.prod(vocoder["upsample_rates"]))
            assert stored[f"{case.name}/wave"].shape == (rows, samples)


@pytest.mark.slow
def test_official_package_gives_the_stored_decodes():
    pytest.importorskip("qwen_tts")
    from tests.golden_tools.official_25hz_decoder import outputs

    with np.load(STORED) as stored:
        for case in CASES:
            for name, array in outputs(case).items():
                np.testing.assert_allclose(array, stored[f"{case.name}/{name}"], atol=1e-5)
