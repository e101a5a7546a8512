"""Optional dependencies: a missing one is an error with the pip command that installs it."""

from __future__ import annotations

import importlib
from typing import Any

from qtts_jax.errors import MissingExtraError


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import a module that an extra of this package installs.

    Call it where the module is used, so that everything else works without the extra.

    Args:
        module: what to import.
        extra: the extra of `pyproject.toml` that installs it.
        purpose: what needs it, as the subject of a sentence ("TensorBoard logs").

    Raises:
        MissingExtraError: it is not installed, or something that it imports is not.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = (getattr(error, "name", None) or module).partition(".")[0]
        verb = "need" if purpose.endswith("s") else "needs"
        raise MissingExtraError(
            f"{purpose} {verb} the package {name}, which is not installed: "
            f"`pip install 'qtts_jax[{extra}]'` installs it."
        ) from error
