"""The small checkpoint inside the package, used when no model is named."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent / "embedded_checkpoint"


def describe() -> str:
    """One line about the embedded checkpoint and its quality."""
    return (DIRECTORY / "description.txt").read_text().strip()
