"""Lower rooms never import higher ones, and nothing here needs torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import qtts_jax

PACKAGE = Path(qtts_jax.__file__).parent
# A room imports itself and rooms of earlier lines only; rooms of one line do not know each other.
FLOORS = (
    {"errors", "embedded", "checks", "compilation_cache"},
    {"processes"},
    {"configs", "device_memory", "extras", "functional", "text", "io"},
    {"sharding"},
    {"placement"},
    {"dsp", "layers"},
    {"modules"},
    {"models"},
    {"generation"},
    {"speech_tokenizer"},
    {"tts"},
    {"data", "serving"},
    {"training", "evaluation"},
    {"cli"},
    {"__main__", "__init__"},
)
FORBIDDEN = {"torch", "transformers", "convert", "experiments", "qwen_tts"}


def room(path):
    """The room of a file: the folder or the module below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor(name):
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "qtts_jax":
                yield from (f"qtts_jax.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_go_down(path):
    own = room(path)
    for name in imports(path):
        assert name.split(".")[0] not in FORBIDDEN, f"{path.name} imports {name}"
        if name.startswith("qtts_jax."):
            other = name.split(".")[1]
            assert other == own or floor(other) < floor(own), f"{path.name} -> {name}"


def test_every_room_has_a_floor_and_every_floor_rooms():
    rooms = {room(path) for path in PACKAGE.rglob("*.py")}
    assert rooms == set.union(*FLOORS)
    assert len(rooms) == sum(map(len, FLOORS))


def test_import_loads_neither_torch_nor_jax():
    code = "import sys, qtts_jax, qtts_jax.cli.main; print(*{'torch', 'jax'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
