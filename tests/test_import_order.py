"""Lower rooms never import higher ones, and nothing here needs torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import qtts_jax

PACKAGE = Path(qtts_jax.__file__).parent
FLOORS = {
    "errors": 0,
    "hf_fields": 0,
    "config": 0,
    "config_12hz": 0,
    "config_25hz": 0,
    "config_25hz_decoder": 0,
    "presets": 0,
    "functional": 0,
    "sharding": 0,
    "layers": 1,
    "modules": 2,
    "models": 3,
    "io": 0.5,  # a side room: it stands on floor 0 only, and any floor above may use it
    "text": 0.5,  # text alone: spoken forms and tokens
    "generation": 4,
    "speech_tokenizer": 5,
    "speech_tokenizer_12hz": 5,
    "speech_tokenizer_25hz": 5,
    "block_decoder": 5,
    "speaker": 5,
    "voices": 5.1,
    "requests": 5.2,
    "synthesis": 5.25,
    "tts": 5.3,
    "embedded": 5,
    "batch": 6,
    "training": 6,
    "warmup": 6,
    "evaluation": 6.5,  # it reads the manifests of training
    "cli": 7,
    "__main__": 7.5,
    "__init__": 8,
}
FORBIDDEN = {"torch", "transformers", "convert", "experiments", "qwen_tts"}


def room(name):
    return name.split(".")[1] if name.count(".") else "__init__"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "qtts_jax":
                yield from (f"qtts_jax.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.name))
def test_imports_go_down(path):
    own = FLOORS[path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
    for name in imports(path):
        assert name.split(".")[0] not in FORBIDDEN, f"{path.name} imports {name}"
        if not name.startswith("qtts_jax.") or own == FLOORS["__init__"]:
            continue
        floor = FLOORS[room(name)]
        same = name.split(".")[1] == path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        assert floor < own or same or (floor == own and own in (0, 5)), f"{path.name} -> {name}"


def test_import_loads_neither_torch_nor_jax():
    code = "import sys, qtts_jax, qtts_jax.cli; print(*{'torch', 'jax'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
