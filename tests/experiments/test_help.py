"""Commands named in a README exist; `--help` shows docstring, options and defaults."""

import argparse
import importlib
import re
import runpy
import sys

import pytest

from experiments import command
from qtts_jax.errors import MissingExtraError
from tests.support.helpers import ROOT

PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("experiments/**/*.md")),
    *sorted(ROOT.glob("experiments/nano/*.sh")),
    *sorted((ROOT / "qtts_jax").rglob("README.md")),
]
CALL = re.compile(r"python -m (experiments(?:\.\w+)+)([^`\n|]*)")
CALLS = sorted(
    {call for page in PAGES for call in CALL.findall(page.read_text()) if "NAME" not in call[0]}
)
OPTIONAL = ("grain", "matplotlib", "tensorboardX", "faster_whisper", "onnx", "onnxruntime", "torch")
COMMANDS = sorted(
    command.module_name(path)
    for room in ("bench", "train", "nano")
    for path in (ROOT / "experiments" / room).glob("*.py")
    if "command.exit_status(" in path.read_text()
)
LIBRARIES = sorted(
    command.module_name(path)
    for path in (ROOT / "experiments").rglob("*.py")
    if "command.exit_status_of_library(" in path.read_text()
)


def help_of(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(name).main()
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_commands_of_the_readmes_exist_with_their_options(name, arguments, monkeypatch, capsys):
    text = help_of(name, monkeypatch, capsys)
    missing = [option for option in re.findall(r"--[\w-]+", arguments) if option not in text]
    assert not missing


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_the_docstring_and_explains_every_option(name, monkeypatch, capsys):
    parsers = []
    parse = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(
        argparse.ArgumentParser, "parse_args", lambda self, *a: parsers.append(self) or parse(self)
    )
    text = help_of(name, monkeypatch, capsys)
    assert text.startswith(f"usage: python -m {name} ")
    assert importlib.import_module(name).__doc__.strip() in text
    assert f"python -m {name}" in importlib.import_module(name).__doc__
    assert not [action.dest for action in parsers[0]._actions if not action.help]


def test_defaults_are_shown_once_and_only_where_there_is_one():
    parser = command.parser("Doc.", str(ROOT / "experiments/bench/decode.py"))
    parser.add_argument("--count", type=int, default=0, help="number")
    parser.add_argument("--share", default="5%", help="part")
    parser.add_argument("--sizes", nargs="+", default=[1, 2], help="sizes")
    parser.add_argument("--out", help="file (default: none)")
    parser.add_argument("--plain", action="store_true", help="flag")
    text = parser.format_help()
    for line in ("number (default: 0)", "part (default: 5%)", "sizes (default: 1 2)"):
        assert line in text
    assert "file (default: none)\n" in text and text.endswith("flag\n")


def test_the_index_names_every_command():
    index = (ROOT / "experiments/README.md").read_text()
    assert not [name for name in COMMANDS if f"python -m {name}" not in index]


@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_name_the_commands_that_use_them(name, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, name, raising=False)
    assert importlib.util.find_spec(name)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(name, run_name="__main__")
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{name} is a library, not a command; run `python -m experiments.")
    users = re.findall(r"python -m ([\w.]+)", error)
    assert users and all(importlib.util.find_spec(user) for user in users)


def test_commands_answer_help_without_any_extra(monkeypatch, capsys):
    for name in list(sys.modules):
        if name.split(".")[0] in OPTIONAL:
            monkeypatch.setitem(sys.modules, name, None)
        elif name.split(".")[0] == "experiments" or name.startswith("qtts_jax.data"):
            monkeypatch.delitem(sys.modules, name)
    for name in OPTIONAL:
        monkeypatch.setitem(sys.modules, name, None)
    for name in COMMANDS:
        assert f"python -m {name}" in help_of(name, monkeypatch, capsys)


def test_curves_without_matplotlib_name_the_pip_command(monkeypatch, tmp_path):
    curves = importlib.import_module("experiments.train.curves")
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"the package matplotlib.*'qtts_jax\[train\]'"):
        curves.draw({"run": {}}, tmp_path / "curves.png")
    assert command.exit_status(curves.__file__, lambda: curves.draw({}, tmp_path)) == 1
