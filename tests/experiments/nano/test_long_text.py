import numpy as np

from experiments.nano.everyday import TESTS
from experiments.nano.long_text import long_text, markdown, pieces


def test_pieces_are_cut_in_silence_and_lose_nothing():
    rate = 1000
    wave = np.ones(70 * rate, np.float32)
    wave[23 * rate : 23 * rate + 40] = 0  # the only silence between 20 and 28 s
    parts = list(pieces(wave, rate))
    assert abs(len(parts[0]) - (23 * rate + 20)) <= 20
    assert max(map(len, parts)) <= 28 * rate
    np.testing.assert_array_equal(np.concatenate(parts), wave)


def test_the_text_lasts_about_as_long_as_was_wanted():
    assert abs(len(long_text(TESTS, 2)) / (2 * 60 * 15) - 1) < 0.2


def test_the_table_has_a_row_a_minute():
    minute = {"minute": 2, "value": 0.9, "low": 0.88, "high": 0.92, "megabytes": 812.4}
    table = markdown(
        {
            "model": "nano",
            "speaker": "af_heart",
            "seconds_of_speech": 121,
            "seconds_of_work": 13.2,
            "words": 300,
            "words_wrong_percent": 2.5,
            "minutes": [minute],
        }
    )
    assert "| 2 | 0.900 | 0.880 to 0.920 | 812 |" in table
