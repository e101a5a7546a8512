"""`qtts batch` on the calls of the golden files gives their codes and audio."""

import json

import numpy as np
import pytest
import soundfile

from qtts_jax.cli.main import main
from tests.golden_tools import detweights
from tests.support.batch_lines import write_requests
from tests.support.helpers import GOLDEN

INDEX = json.loads((GOLDEN / "index.json").read_text())


def golden_requests(kind, folder):
    """The golden calls of a checkpoint, one line for every text."""
    for name, (samples, rate) in {"ref0": (19700, 24000), "ref1": (11520, 24000)}.items():
        wave = detweights.wave(INDEX["seed"], f"case/{name}", samples, rate)
        soundfile.write(folder / f"{name}.wav", wave, rate, subtype="FLOAT")
    for case, spec in INDEX["cases"].items():
        if spec["ckpt"] != kind:
            continue
        kwargs = dict(spec["kwargs"])
        texts = kwargs.pop("text")
        many = isinstance(texts, list)
        for i, text in enumerate(texts if many else [texts]):
            own = {k: v[i] if isinstance(v, list) else v for k, v in kwargs.items()}
            request = {"id": f"{case}-{i}", "text": text, "greedy": True, **own}
            if "x_vector_only_mode" in request:
                request["x_vector_only"] = request.pop("x_vector_only_mode")
            if "non_streaming_mode" in request:
                request["stream_text"] = not request.pop("non_streaming_mode")
            if "ref_audio" in request:
                request["ref_audio"] += ".wav"
            yield request


@pytest.mark.parametrize(
    "kind",
    [
        "custom_voice",
        pytest.param("voice_design", marks=pytest.mark.slow),
        pytest.param("base", marks=pytest.mark.slow),
    ],
)
def test_golden_calls_as_lines(kind, converted, golden, tmp_path):
    requests = list(golden_requests(kind, tmp_path))
    path, out = write_requests(tmp_path / "requests.jsonl", requests), tmp_path / "out"
    options = ["--model", str(converted(kind)), "--dtype", "float32", "--exact-reference"]
    assert main(["batch", str(path), "--out", str(out), "--batch-size", "5", *options]) == 0
    for request in requests:
        case, i = request["id"].rsplit("-", 1)
        data = golden(f"gen_{case}")
        np.testing.assert_array_equal(
            np.load(out / f"{request['id']}.codes.npy"), data[f"codes{i}"]
        )
        wave, rate = soundfile.read(out / f"{request['id']}.wav", dtype="float32")
        stride = 1 if len(data[f"wav{i}"]) == len(wave) else 11
        assert rate == 24000 and len(wave) == data[f"wav{i}_len"][0]
        np.testing.assert_allclose(wave[::stride], data[f"wav{i}"], rtol=0, atol=1e-4)
