"""Memory of a server under steady load for a minute, as the command that takes longer."""

import pytest

from experiments.bench import serve_soak


@pytest.mark.by_hand
def test_memory_stays_flat(converted):
    options = ["--rows", "4", "--max-prompt", "64", "--max-seconds", "4"]
    options += ["--model", str(converted("custom_voice"))]
    result = serve_soak.measure(options, 0.75, 3.0, seed=0, texts=("Short.", "Hi."))
    assert serve_soak.faults(result) == []
    assert result["requests"] > 80 and len(result["memory_mib"]) > 30


def test_faults_are_found():
    good = {"growth": 0.01, "failed": 0, "requests_left": 0}
    assert serve_soak.faults(good) == []
    for fault in ({"growth": 0.03}, {"failed": 1}, {"requests_left": 1}):
        assert serve_soak.faults(good | fault)
