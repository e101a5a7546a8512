"""Library of the ablations: a question with its variations, read from one small file."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments import command
from experiments.runner.recipe import Changes
from qtts_jax.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[1] / "ablations"


@dataclass(frozen=True)
class Ablation:
    """A question and the configurations that answer it.

    Attributes:
        name: of its file.
        doc: docstring of the file: question, command, answer.
        variations: changes of the recipe of a scale, by the name that tables show.
    """

    name: str
    doc: str
    variations: Mapping[str, Changes]

    @property
    def question(self) -> str:
        """The first line of the docstring."""
        return self.doc.strip().splitlines()[0]


def names() -> list[str]:
    """The ablations of this repository."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def load(name: str) -> Ablation:
    """Read an ablation by its name, or by the path of a file of the same form.

    Raises:
        ConfigError: there is none, or it has no `VARIATIONS` or no docstring.
    """
    path = Path(name) if name.endswith(".py") else FOLDER / f"{name}.py"
    if not path.is_file():
        raise ConfigError(
            f"there is no ablation {name!r}; choose one of {', '.join(names())}, or give the path "
            "of a file of that form."
        )
    spec = importlib.util.spec_from_file_location(f"ablation_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    variations = getattr(module, "VARIATIONS", None)
    if not variations or not module.__doc__:
        raise ConfigError(
            f"{path} needs a docstring (question, command, answer) and VARIATIONS, a dictionary of "
            "changes by name."
        )
    return Ablation(path.stem, module.__doc__, variations)


def slug(variation: str) -> str:
    """The name of a variation as part of a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", variation.lower()).strip("-")


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
