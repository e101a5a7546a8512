"""Every notebook runs from its first cell to its last, as plain Python."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path):
    """(name, source) of every code cell; Jupyter itself is not needed."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for n, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            yield f"{path.name}, cell {n}", "".join(cell["source"])


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_without_outputs(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    for cell in notebook["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # cells write files where they run
    namespace = {"__name__": "__main__"}
    for name, source in code_cells(path):
        exec(compile(source, name, "exec"), namespace)
    if path.stem == "first_steps":
        codes = namespace["tts"].synthesize([namespace["request"]])[0].codes
        assert [f.tolist() for f in namespace["by_hand"]] == codes[:3].tolist()
        assert abs(namespace["streamed"] - namespace["whole"]).max() < 1e-5
