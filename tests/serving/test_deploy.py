"""The Dockerfile and the Kubernetes example: they fit the server, and their command starts it."""

import io
import json
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import requests
import soundfile
import yaml

import qtts_jax
from qtts_jax.cli.main import build_parser
from qtts_jax.cli.serve import DRAIN_SECONDS
from qtts_jax.compilation_cache import SWITCH
from qtts_jax.serving.http.settings import API_KEY
from tests.support.server_process import free_port, server_process

FOLDER = Path(qtts_jax.__file__).parent / "serving" / "deploy"
ROOT = Path(qtts_jax.__file__).parents[1]


@pytest.fixture(scope="module")
def image():
    """Instructions of the Dockerfile: lists of arguments by name."""
    instructions = {}
    for line in (FOLDER / "Dockerfile").read_text().splitlines():
        if line and not line.startswith("#"):
            name, arguments = line.split(" ", 1)
            instructions.setdefault(name, []).append(arguments)
    return instructions


@pytest.fixture(scope="module")
def kubernetes():
    """The objects of the example by kind."""
    documents = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def pod(kubernetes):
    return kubernetes["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    return pod["containers"][0]


def options(arguments):
    """What `qtts serve` makes of its arguments."""
    return build_parser().parse_args(["serve", *arguments])


def test_the_image_has_what_the_command_needs(image):
    copied = [path for line in image["COPY"] for path in line.split()[:-1]]
    assert {"pyproject.toml", "README.md", "LICENSE", "convert", "qtts_jax"} == set(copied)
    assert all((ROOT / path).exists() for path in copied)
    assert ".[serve]" in image["RUN"][0]
    assert image["ENV"] == [f"{SWITCH}=/cache/xla"]
    assert json.loads(image["ENTRYPOINT"][0]) == ["qtts", "serve"]
    given = options(json.loads(image["CMD"][0]))
    assert str(given.port) == image["EXPOSE"][0] and given.host == "0.0.0.0"
    assert str(given.voices) in json.loads(image["VOLUME"][0])


def test_the_pod_fits_the_server(kubernetes, pod, container, image):
    given = options(container["args"])
    port = container["ports"][0]
    assert given.port == port["containerPort"] and given.host == "0.0.0.0"
    assert kubernetes["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    labels = kubernetes["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kubernetes["Service"]["spec"]["selector"] == labels
    assert kubernetes["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": port["name"]}
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": port["name"]}
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + DRAIN_SECONDS
    assert [each["name"] for each in container["env"]] == [API_KEY]
    assert str(pod["securityContext"]["runAsUser"]) == image["USER"][0]
    assert re.search(r"--uid (\d+)", " ".join(image["RUN"]))[1] == image["USER"][0]
    mounted = [each["mountPath"] for each in container["volumeMounts"]]
    assert set(mounted) <= set(json.loads(image["VOLUME"][0]))


@pytest.mark.by_hand
def test_the_command_of_the_pod_serves_nano(image, container, tmp_path):
    program, *start = json.loads(image["ENTRYPOINT"][0])
    program = shutil.which(program, path=Path(sys.executable).parent)
    port = free_port()
    # Options that come last count: another port, and few programs.
    fewer = ["--port", str(port), "--rows", "1", "--chunk-frames", "1", "--max-prompt", "64"]
    fewer += ["--max-seconds", "4", "--max-reference-seconds", "1"]
    command = [program, *start, *container["args"], *fewer]
    environment = {container["env"][0]["name"]: "secret"}
    with server_process(command, port, tmp_path / "log", **environment) as process:
        answer = requests.post(
            f"{process.url}/v1/audio/speech",
            json={"input": "Hello.", "response_format": "wav", "seed": 1},
            headers={"Authorization": "Bearer secret"},
            timeout=60,
        )
        wave, rate = soundfile.read(io.BytesIO(answer.content))
        assert rate == 24000 and len(wave) > 4000 and abs(wave).max() > 0.01
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
