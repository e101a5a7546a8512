"""A checkpoint, and `qtts batch` on lines of a test."""

import json

import pytest

from qtts_jax.cli.batch.run import run_batch
from tests.support.batch_lines import SETTINGS, results


@pytest.fixture(scope="module")
def model(tts):
    return tts("custom_voice", exact_reference=False)


@pytest.fixture
def run(model, tmp_path):
    """Run lines through `run_batch`: (failed, reports, results by id)."""
    out = tmp_path / "out"

    def run_lines(lines, batch_size=4):
        path = tmp_path / "requests.jsonl"
        path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
        reports = []
        failed = run_batch(model, path, out, batch_size, reports.append, SETTINGS)
        return failed, reports, results(out)

    run_lines.out = out
    return run_lines
