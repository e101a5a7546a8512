"""The small checkpoint inside the package, used when no model is named."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent / "embedded_checkpoint"


def describe() -> str:
    """One line that says what the embedded checkpoint is and how good it can be."""
    return (DIRECTORY / "description.txt").read_text().strip()
