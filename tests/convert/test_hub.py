"""Hub ids: the hub's cache is used, and without it the error says what to do."""

import sys

import pytest

from convert.hub import resolve
from qtts_jax.errors import CheckpointError

huggingface_hub = pytest.importorskip("huggingface_hub")
ID = "Qwen/Qwen3-TTS-12Hz-0.6B-Base"


def test_local_folder_is_taken_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert str(resolve("a/b")) == "a/b"


def test_hub_id_is_fetched_through_the_client(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert resolve(ID) == tmp_path
    ((name, patterns),) = asked
    assert name == ID
    assert {"*.safetensors", "speech_tokenizer/*"} <= set(patterns)


def test_without_network_the_error_says_what_to_download_and_where_to_put_it(monkeypatch):
    def snapshot_download(name, allow_patterns):
        raise ConnectionError("no route to host\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(CheckpointError) as error:
        resolve(ID)
    message = str(error.value)
    assert "(no route to host)" in message
    assert f"download all files of https://huggingface.co/{ID}" in message
    assert "into a folder and give that folder instead" in message


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install huggingface_hub.*or download all"):
        resolve(ID)


@pytest.mark.parametrize("name", ["/no/such/folder", "folder", "a/b/c", "a//b", "../x"])
def test_other_names_are_folders_that_do_not_exist(name):
    with pytest.raises(CheckpointError, match="there is no folder"):
        resolve(name)
