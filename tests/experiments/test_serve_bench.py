"""The arithmetic of the load bench: drawn requests, play-out of answers, and the report."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest

from experiments.bench.serve_answers import BYTES_PER_SECOND, WINDOW, Answer, Audibility, figures
from experiments.bench.serve_report import PUBLISHED, report, section
from experiments.bench.serve_requests import LONGEST, SHORTEST, arrivals, bodies
from tests.support.helpers import ROOT

RESULTS = ROOT / "experiments/results"


def test_drawn_lengths_have_the_mean_and_the_limits():
    made = bodies(4000, seed=0, lengths=True)
    frames = np.array([body["max_new_tokens"] for body in made]) - 1
    assert np.mean(frames) / 12.5 == pytest.approx(4.2, rel=0.03)
    assert min(frames) == round(12.5 * SHORTEST) and max(frames) == round(12.5 * LONGEST)
    assert made == bodies(4000, seed=0, lengths=True) != bodies(4000, seed=1, lengths=True)
    plain = bodies(3, seed=0)
    assert [body.keys() for body in plain] == 3 * [{"input", "response_format", "seed"}]


def test_arrivals_have_the_rate():
    due = arrivals(4000, rate=20.0, seed=0)
    assert due == sorted(due) and 4000 / due[-1] == pytest.approx(20, rel=0.05)


def test_a_player_waits_for_late_parts():
    half = BYTES_PER_SECOND // 2
    steady = Answer([(0.1, half), (0.55, 2 * half), (1.0, 3 * half)])
    broken = Answer([(0.1, half), (0.75, 2 * half), (1.2, 3 * half)])
    assert steady.longest_gap == 0.0
    assert broken.longest_gap == pytest.approx(0.15)


def test_the_first_audible_window_is_found_across_parts():
    samples = np.zeros(4 * WINDOW, "<i2")
    samples[2 * WINDOW + 5 : 3 * WINDOW] = 200  # -44 dBFS
    content, is_audible = samples.tobytes(), Audibility()
    cuts = [0, 3, 2 * WINDOW, 5 * WINDOW, 6 * WINDOW, len(content)]
    parts = [content[a:b] for a, b in pairwise(cuts)]
    assert [is_audible(part) for part in parts] == [False, False, False, True, False]
    assert not Audibility()(np.full(4 * WINDOW, 90, "<i2").tobytes())  # -51 dBFS


def test_figures_of_good_and_failed_answers():
    second = BYTES_PER_SECOND
    good = [
        Answer([(0.1, second // 2), (0.3, second)], audible=0.3),
        Answer([(0.2, second // 2), (0.9, 3 * second)]),
    ]
    found = figures([*good, Answer(fault="status 429")], wall=2.0)
    assert found["requests"] == 3 and found["failed"] == 1
    assert found["faults"] == {"status 429": 1}
    assert found["first_byte_ms"] == {"p50": 150.0, "p95": 195.0, "p99": 199.0}
    assert found["first_audible_ms"]["p99"] == 300.0 and found["end_ms"]["p50"] == 600.0
    assert found["underruns"] == 1  # 0.5 s are played from 0.2 to 0.7 s, the rest comes at 0.9 s
    assert found["audio_s"] == 2.0 and found["audio_s_per_s"] == 2.0
    silent = figures([good[1]], wall=1.0)
    assert silent["first_audible_ms"] is None
    row = section({"machine": "m", "about": "a.", "runs": [{"rate": 1.0, "seed": 0} | silent]})[-1]
    assert row == "| 1 a second | 1 | 200 / 200 (200) | - | 1 of 1 | 0 | 3 | 3 |"


def test_a_row_has_medians_of_its_seeds_and_sums():
    def run(p50, p95, audio):
        times = {"p50": p50, "p95": p95}
        common = {"first_byte_ms": times, "first_audible_ms": times, "underruns": 1, "failed": 2}
        return {"streams": 4, "requests": 10, "audio_s_per_s": audio} | common

    runs = [run(1.0, 7.0, 100.0), run(2.0, 5.0, 300.0), run(9.0, 6.0, 200.0)]
    lines = section(
        {"machine": "m", "about": "a.", "size": "tiny", "lengths": "drawn", "runs": runs}
    )
    assert "the length of each utterance is drawn." in lines[0]
    assert lines[-1] == "| 4 at once | 3 | 2 / 6 (7) | 2 / 6 (7) | 3 of 30 | 6 | 200 | - |"


def test_the_committed_table_is_that_of_its_result_files():
    text = (RESULTS / "serve.md").read_text()
    names = re.findall(r"^## (\S+\.json)$", text, re.MULTILINE)
    assert names
    assert text == report({name: json.loads((RESULTS / name).read_text()) for name in names})
    assert all(row.source in text for row in PUBLISHED)
