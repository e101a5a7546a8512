"""Notebooks are paired with a script, hold their outputs, and stay small.

That they run from the first cell to the last is checked by `pytest --nbmake notebooks` (`.ci/run`).
"""

import json
import re
from pathlib import Path

import jupytext
import pytest

from tests.support.helpers import ROOT

SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
MOST_BYTES = 1_500_000


def test_every_notebook_has_a_script():
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == {path.stem for path in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_and_notebook_have_the_same_cells(script):
    stored = [
        (cell["cell_type"], "".join(cell["source"]))
        for cell in json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    ]
    written = [(cell["cell_type"], cell["source"]) for cell in jupytext.read(script)["cells"]]
    assert stored == written, f"run: jupytext --sync {script.relative_to(ROOT)}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_outputs_are_stored_and_small(script):
    notebook = script.with_suffix(".ipynb")
    assert notebook.stat().st_size < MOST_BYTES
    outputs = [
        output
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", [])
    ]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert "image/png" in kinds
    assert not [output for output in outputs if output["output_type"] == "error"]


def test_links_between_notebooks_and_from_readme_exist():
    for path in (ROOT / "README.md", *SCRIPTS):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (Path(path).parent / target).exists(), f"{path.name}: {target}"
