"""`qtts eval` on the command line."""

import pytest

from qtts_jax.cli.main import main
from qtts_jax.evaluation.panel import KINDS
from qtts_jax.evaluation.run import TASKS


def test_help_names_every_task_and_judge(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["eval", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name in (*TASKS, *KINDS):
        assert f"  {name} " in text


def test_a_fault_is_one_sentence(tmp_path, capsys):
    missing = tmp_path / "none.jsonl"
    out = tmp_path / "out"
    assert main(["eval", "codec", "--manifest", str(missing), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("qtts: the manifest") and error.count("\n") == 1
    assert not out.exists()
