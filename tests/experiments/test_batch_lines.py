"""Where the codes of a line part."""

import numpy as np

from experiments.bench.batch_lines import differing_frame


def test_the_first_frame_with_another_code_or_the_first_that_is_missing():
    codes = np.arange(12).reshape(6, 2)
    other = codes.copy()
    other[3, 1] += 1
    other[5] += 1
    assert differing_frame(codes, other) == differing_frame(other, codes) == 3
    assert differing_frame(codes, codes[:4]) == differing_frame(codes[:4], codes) == 4
