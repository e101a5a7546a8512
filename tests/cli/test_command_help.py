"""`qtts --help`, `--version`, and the help of every command."""

import argparse
import json
import shlex

import pytest

from qtts_jax.cli.examples import EPILOG, EXAMPLES
from qtts_jax.cli.main import build_parser, main


def commands():
    """The parser of every command, by name."""
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out.startswith("qtts_jax ")


def test_the_help_names_nano_and_the_convert_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "nano" in out and "python -m convert" in out and 'qtts say "Hello' in out


@pytest.mark.parametrize("name", commands())
def test_every_argument_is_described_with_its_default(name):
    parser = commands()[name]
    for action in parser._actions:
        label = f"{name} {action.option_strings or action.dest}"
        assert action.help, label
        if action.default not in (None, False, argparse.SUPPRESS):
            assert "default" in action.help, label
    text = parser.format_help()
    assert "examples:\n" in text and f"  qtts {name}" in text


def test_examples_are_commands_that_parse():
    text = "\n".join([EPILOG, *EXAMPLES.values()]).replace("\\\n", " ")
    lines = [x.partition(" | ")[2] or x for x in map(str.strip, text.splitlines())]
    lines = [x.partition(" < ")[0] for x in lines]  # redirection is the shell's
    tried = [shlex.split(x)[1:] for x in lines if x.startswith("qtts ")]
    assert len(tried) >= 15
    for arguments in tried:
        build_parser().parse_args(arguments)
    for line in (x for x in lines if x.startswith("{")):
        json.loads(line)
