"""A server as a process among clients that misbehave, as the command that does it at length."""

import pytest

from experiments.bench import serve_chaos

pytestmark = pytest.mark.slow


def test_no_bad_client_costs_another(converted, model):
    options = ["--rows", "4", "--max-prompt", "64", "--max-seconds", "4"]
    options += ["--model", str(converted("custom_voice"))]
    result = serve_chaos.measure(options, model, 240, 12, max_new_tokens=26, seed=0)
    assert result["faults"] == []
    assert min(result["answers"][kind] for kind in ("whole", "aborted", "refused")) > 20
