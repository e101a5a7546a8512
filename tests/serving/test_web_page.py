"""The web page and its script: types, policy, and that they need nothing from elsewhere."""

import base64
import hashlib
import re

import pytest
import requests

from qtts_jax.serving.http.settings import ServerSettings
from tests.support.live_server import live_server


@pytest.fixture(scope="module")
def url(engine):
    with live_server(engine, ServerSettings(api_key="secret")) as address:
        yield f"http://{address}/"


def test_the_page_is_served_without_a_key(url):
    for name, kind in (("", "text/html"), ("player.js", "text/javascript")):
        answer = requests.get(url + name, timeout=10)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_policy_allows_the_pages_own_script_and_style_alone(url):
    answer = requests.get(url, timeout=10)
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for directive, element in (("script-src", "script"), ("style-src", "style")):
        block = re.search(rf"<{element}.*?>(.*?)</{element}>", answer.text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        sources = {"'self'"} if element == "script" else set()
        assert set(policy[directive].split()) == sources | {f"'sha256-{digest}'"}


def test_the_page_names_no_other_host_and_labels_its_fields(url):
    page = requests.get(url, timeout=10).text
    assert "//" not in re.sub(r"(?m)(^|\s)// .*$", "", page)  # comments of the script apart
    labelled = set(re.findall(r'<label for="(\w+)"', page))
    fields = set(re.findall(r'<(?:textarea|select|input) id="(\w+)"', page))
    assert fields - labelled == {"timbre"}  # its label is around it


def test_the_server_names_what_the_page_offers(url, model):
    answer = requests.get(f"{url}v1/models", headers={"Authorization": "Bearer secret"}, timeout=10)
    described = answer.json()["data"][0]
    assert described["languages"] == model.supported_languages
    assert described["modes"] == ["custom_voice"] and described["sample_rate"] == 24000
