"""The Ray Serve application: two replicas behind one address, started by the documented command."""

import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml

import qtts_jax
from qtts_jax.serving.encoders import pcm16
from qtts_jax.tts.voices import CustomVoice
from tests.support.server_process import free_port, server_process

CONFIG = Path(qtts_jax.__file__).parent / "serving" / "deploy" / "ray.yaml"

pytest.importorskip("ray.serve", reason="needs the extra: `pip install 'qtts_jax[ray]'`")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replica": 2}, "replica"),
        ({"engine": {"row": [1]}}, "engine.row"),
        ({"engine": {"rows": [4, 1]}}, "ascending"),
        ({"server": {"key": "x"}}, "server.key"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    from qtts_jax.serving.ray_app import application

    with pytest.raises(ValueError, match=message):
        application(arguments)


def replicas(url):
    """Finished requests of both replicas, by the time at which each was started.

    Ray chooses who answers, and starts with the first that is ready.
    """
    counts, end = {}, time.monotonic() + 60
    while len(counts) < 2:
        assert time.monotonic() < end, "one replica alone answers"
        lines = requests.get(f"{url}/metrics", timeout=10).text.splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if line[0] != "#")
        finished = [float(n) for name, n in values.items() if "requests_total" in name]
        counts[values["qtts_frames_created"]] = sum(finished)
    return counts


@pytest.mark.by_hand
def test_two_replicas_share_the_requests(converted, tts, tmp_path):
    config, port = yaml.safe_load(CONFIG.read_text()), free_port()
    config["http_options"]["port"] = port
    arguments = config["applications"][0]["args"]
    assert arguments["replicas"] == 2
    arguments["model"] = str(converted("custom_voice"))
    arguments["engine"] = {"rows": [1], "chunk_frames": [1], "max_prompt": 64, "max_seconds": 4}
    path = tmp_path / "ray.yaml"
    path.write_text(yaml.safe_dump(config))
    # Ray's own metrics and usage reports are not wanted here.
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "QTTS_API_KEY": "secret"}
    scripts = Path(sys.executable).parent
    command = [shutil.which("serve", path=scripts), "run", str(path)]
    each = CustomVoice("Hello.", "ryan", "english", seed=1, sampling={"max_new_tokens": 31})
    wanted = pcm16(tts("custom_voice", exact_reference=False).generate([each])[0].wave)
    body = {"input": "Hello.", "voice": "ryan", "language": "english", "seed": 1}
    body |= {"response_format": "pcm", "max_new_tokens": 31}
    answers = []

    def speak(url):
        answers.append(
            requests.post(
                f"{url}/v1/audio/speech",
                json=body,
                headers={"Authorization": "Bearer secret"},
                timeout=60,
            )
        )

    with server_process(command, port, tmp_path / "log", **environment) as process:
        assert requests.post(f"{process.url}/v1/audio/speech", json=body).status_code == 401
        replicas(process.url)
        threads = [threading.Thread(target=speak, args=(process.url,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        finished = replicas(process.url)
    assert len(answers) == 12
    for answer in answers:
        assert answer.status_code == 200, answer.text
        got = np.frombuffer(answer.content, "<i2").astype(int)
        assert got.shape == wanted.shape and np.max(np.abs(got - wanted)) <= 1
    assert sum(finished.values()) == 12 and min(finished.values()) > 0
