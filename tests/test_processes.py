"""Start-up of several processes, and two of them with four virtual devices each."""

import argparse
import json
import signal
import time

import jax
import numpy as np
import pytest

from qtts_jax import QwenTTS, processes
from qtts_jax.cli.batch.lines import Line
from qtts_jax.cli.batch.share import own_directory, own_share
from qtts_jax.cli.main import main
from qtts_jax.errors import ConfigError, RequestError
from qtts_jax.io.checkpoint import flatten_params, save_params
from qtts_jax.training import checkpoints
from tests.support.two_processes import finish_two, free_port, generated, run_two, start_two
from tests.training.test_trainer import losses, trainer


def options(coordinator=None, process=None, count=None, cluster=False):
    return argparse.Namespace(
        coordinator=coordinator, process=process, processes=count, cluster=cluster
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (options("host:1"), "options of several processes --process and --processes is missing"),
        (options(process=0, count=2), "options of several processes --coordinator is missing"),
        (options("host:1", 2, 2), "process 2 of 2 does not exist"),
        (options("host:1", -1, 2), "process -1 of 2 does not exist"),
        (options("host", 0, 2), "like host0:8476, with a port, not 'host'"),
        (options("host:port", 0, 2), "like host0:8476, with a port"),
        (options("host:1", cluster=True), "--cluster finds out what --coordinator would say"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(given, message):
    with pytest.raises(ConfigError, match=message) as error:
        processes.start(given)
    assert str(error.value).count(".") == 1 or "." not in str(error.value)[:-1]


def test_a_coordinator_that_does_not_answer():
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match=f"coordinator {address} does not answer after 0.1 s"):
        processes.start(options(address, 1, 2), seconds=0.1)


def test_the_command_line_prints_the_sentence(capsys):
    assert main(["info", "--process", "1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("qtts: of the options of several processes --coordinator and --pro")
    assert error.count("\n") == 1


def test_without_a_cluster_the_environment_says_nothing(monkeypatch):
    # What JAX raises where no launcher has set anything.
    def initialize(**_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ConfigError, match="environment describes no cluster that JAX knows"):
        processes.start(options(cluster=True))


def test_a_port_that_is_taken(monkeypatch):
    def initialize(**_):
        raise RuntimeError("UNKNOWN: Failed to start RPC server")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ConfigError, match="cannot start with the coordinator 127.0.0.1:1 "):
        processes.start(options("127.0.0.1:1", 0, 2))


def test_processes_that_work_together_need_a_mesh(monkeypatch, capsys):
    monkeypatch.setattr(processes, "together", lambda: True)
    monkeypatch.setattr(processes, "end_at_once", lambda status: None)
    assert main(["say", "Hi.", "-o", "none.wav"]) == 1
    assert "work together on a mesh of all their devices; describe it by --mesh" in (
        capsys.readouterr().err
    )


def test_alone_nothing_is_shared_or_waited_for():
    processes.start(options())
    assert (processes.count(), processes.number(), processes.prefix()) == (1, 0, "")
    assert processes.writes() and not processes.together() and processes.own_devices() is None
    assert processes.agreed(7) == 7 and processes.in_turn(lambda: 3) == 3
    processes.wait_for_all("never")
    processes.end_at_once(1)


def test_lines_are_dealt_out_in_turn(monkeypatch, tmp_path):
    # Lines 3 and 7 are blank, 5 is faulty.
    lines = [Line(n, {"id": str(n)}) for n in (1, 2, 4, 6, 8)]
    faults = [(5, None, RequestError("no."))]
    assert own_share(lines, faults) == (lines, faults)
    assert own_directory(tmp_path) == tmp_path
    monkeypatch.setattr(processes, "count", lambda: 2)
    shares = []
    for number in range(2):
        monkeypatch.setattr(processes, "number", lambda number=number: number)
        own, faulty = own_share(lines, faults)
        shares.append([line.number for line in own] + [number for number, _, _ in faulty])
        assert own_directory(tmp_path) == tmp_path / f"process-{number}-of-2"
    assert shares == [[1, 4, 6], [2, 8, 5]]
    own_directory(tmp_path).mkdir()
    assert own_directory(tmp_path).is_dir()
    for count in (1, 3):
        monkeypatch.setattr(processes, "count", lambda count=count: count)
        with pytest.raises(RequestError, match=f"results of 2 processes, and this run has {count}"):
            own_directory(tmp_path)


@pytest.mark.slow
def test_two_processes_generate_what_one_device_does(converted, converted_25hz, tmp_path):
    checkpoints = converted("custom_voice"), converted_25hz("custom_voice")
    meshes = (4, 2), (8, 1)
    asked = [x for each in zip(checkpoints, meshes, strict=True) for x in (each[0], *each[1])]
    for report in run_two("inference", tmp_path, *asked):
        assert len(report["refusals"]) == 2
        assert all("but the mesh has devices of 2;" in text for text in report["refusals"])
    for n, checkpoint in enumerate(checkpoints):
        wanted = generated(QwenTTS.from_pretrained(checkpoint, dtype="float32"))
        for process in range(2):
            found = np.load(tmp_path / f"{n}.{process}.npz")
            assert sorted(found) == sorted(wanted)
            for name, array in wanted.items():
                if name.startswith("codes"):
                    np.testing.assert_array_equal(found[name], array)
                else:  # the order of float32 sums
                    np.testing.assert_allclose(found[name], array, atol=1e-5 * np.abs(array).max())


@pytest.mark.slow
def test_each_process_speaks_its_lines(converted, tmp_path):
    requests, out = tmp_path / "requests.jsonl", tmp_path / "out"
    common = {"speaker": "ryan", "max_new_tokens": 4, "seed": 1}
    lines = [{"id": f"line{i}", "text": "Short one.", **common} for i in range(4)]
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines) + "no JSON\n")
    arguments = ["batch", requests, "--out", out, "--model", converted("custom_voice")]

    def command(number, port):
        together = ["--coordinator", f"127.0.0.1:{port}", "--process", number, "--processes", 2]
        return ["qtts_jax", *arguments, *together]

    (first, _, errors), (second, _, _) = finish_two(start_two(command, devices=1))
    assert (first, second) == (1, 0)
    assert "process 0: requests.jsonl, line 5: this is not JSON" in errors
    for number, ids in enumerate((["line0", "line2"], ["line1", "line3"])):
        own = out / f"process-{number}-of-2"
        rows = [json.loads(row) for row in (own / "results.jsonl").read_text().splitlines()]
        assert [row["id"] for row in rows if row["status"] == "ok"] == ids
        assert all((own / f"{name}.wav").is_file() for name in ids)
    assert main([str(x) for x in arguments]) == 1


@pytest.mark.slow
def test_two_processes_describe_a_checkpoint_once(converted):
    def command(number, port):
        together = ["--coordinator", f"127.0.0.1:{port}", "--process", number, "--processes", 2]
        mesh = ["--model", converted("custom_voice"), "--mesh", "data=4,model=2"]
        return ["qtts_jax", "info", *mesh, *together]

    (first, table, _), (second, other, _) = finish_two(start_two(command))
    assert (first, second) == (0, 0)
    assert "data=4, model=2" in table and "on each device" in table
    assert "process 0: host memory" in table
    assert other.startswith("process 1: host memory") and other.count("\n") == 1


@pytest.mark.slow
def test_each_process_reads_its_shards_alone(tmp_path):
    table = np.repeat(np.arange(64, dtype=np.float32)[:, None], 1 << 20, axis=1)  # 268 MB
    save_params(tmp_path, {"table": table})
    for found in run_two("restore", tmp_path):
        assert found["read"] == 0.5 and found["right"]
        assert found["peak"] < 0.75  # of the array: on a CPU the shards themselves are a half


def newest(run):
    """Step of the newest checkpoint, 0 for none."""
    names = [path.name for path in checkpoints.checkpoints(run / "checkpoints")]
    return int(names[-1].removeprefix("step_")) if names else 0


@pytest.mark.slow
def test_training_goes_on_after_a_process_was_stopped_or_killed(tmp_path):
    run = tmp_path / "run"
    mesh = json.dumps({"fsdp": 8})
    saved = 0

    def train(steps):
        return start_two(
            lambda n, port: ["tests.support.two_processes", n, port, "train", run, steps, mesh]
        )

    def train_until_saved():
        both, end = train(10**6), time.monotonic() + 120
        while newest(run) <= saved:
            assert time.monotonic() < end and both[1].poll() is None, finish_two(both, 1)
            time.sleep(0.05)
        return both

    # A signal to one process stops both after the same step.
    both = train_until_saved()
    both[1].send_signal(signal.SIGTERM)
    ends = [json.loads(out.splitlines()[-1])["step"] for _, out, _ in finish_two(both)]
    saved = newest(run)
    assert ends == [saved, saved]

    both = train_until_saved()
    both[1].kill()
    both[1].wait()
    # The other cannot go on alone; a launcher would end it, too.
    both[0].kill()
    finish_two(both)
    assert newest(run) > saved
    saved = newest(run)

    for status, out, errors in finish_two(train(saved + 4)):
        assert status == 0, errors[-4000:]
        found = json.loads(out.splitlines()[-1])
        assert found == {"step": saved + 4, "held": 0.5, "processes": 2}
    # On another mesh, of one device, the run goes on as well, and all of it is what one device does
    # without an interruption.
    assert trainer(run, steps=saved + 6).run().step == saved + 6
    whole = trainer(tmp_path / "whole", steps=saved + 6)
    whole.run()
    found, wanted = losses(run), losses(tmp_path / "whole")
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-5)
    arrays = flatten_params(trainer(run).newest().params)
    for name, array in flatten_params(whole.newest().params).items():
        np.testing.assert_allclose(arrays[name], array, atol=1e-5, err_msg=name)
