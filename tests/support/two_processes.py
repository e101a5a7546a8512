"""Starts the same command in two processes of four virtual devices each, and collects both.

    python -m tests.support.two_processes PROCESS PORT inference|restore|train ARGUMENTS

is one of them; `run_two` starts both.
"""

import argparse
import json
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from qtts_jax import QwenTTS, processes
from qtts_jax.errors import RequestError
from qtts_jax.serving.engine import Engine
from qtts_jax.sharding import make_mesh
from qtts_jax.tts import requests
from qtts_jax.tts.voices import CustomVoice
from tests.support.helpers import virtual_devices


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start_two(command, devices=4):
    """Two processes of `command(number, port)`, started."""
    port = free_port()
    environment = virtual_devices(devices)
    return [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, command(number, port))],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]


def finish_two(both, seconds=240):
    """(exit status, stdout, stderr) of both; they are killed after so many seconds."""
    try:
        outputs = [process.communicate(timeout=seconds) for process in both]
    finally:
        for process in both:
            process.kill()
    return [(p.returncode, *out) for p, out in zip(both, outputs, strict=True)]


def run_two(what, *arguments):
    """What `main` prints as JSON in each of the two processes."""
    results = finish_two(
        start_two(lambda n, port: ["tests.support.two_processes", n, port, what, *arguments])
    )
    for status, _, errors in results:
        assert status == 0, errors[-4000:]
    return [json.loads(out.splitlines()[-1]) for _, out, _ in results]


def generated(tts):
    """Codes and audio of requests of unlike lengths, sampled and greedy, whole and streamed."""
    codec = tts.speech_tokenizer
    if codec.needs_voice:
        codec.set_flow(steps=2)
    texts = ("Short one.", "One that is a little longer.", "Three.")
    asked = [
        CustomVoice(
            text,
            "ryan",
            language="english",
            seed=i,
            decoder_voice=codec.placeholder_voice(),
            sampling={"max_new_tokens": 4 + i, "do_sample": i != 1, "subtalker_dosample": i != 1},
        )
        for i, text in enumerate(texts)
    ]
    found = {}
    for i, speech in enumerate(tts.generate(asked)):
        found |= {f"codes{i}": speech.codes, f"wave{i}": speech.wave}
    # Text that arrives without a limit is bounded by the runaway guard.
    parts = replace(asked[1], text=iter(["One that is ", "a little longer."]), sampling={})
    with mock.patch.object(requests, "frame_budget", return_value=7):
        chunks = list(tts.stream(parts, [1]))
    found["wave of a stream"] = np.concatenate(chunks)
    return found


def inference(directory, *checkpoints):
    """Save what is generated on a mesh of the devices of both processes.

    Args:
        checkpoints: for each its folder, and the data and the model axis of its mesh.
    """
    refusals = []
    for n in range(0, len(checkpoints), 3):
        checkpoint, *sizes = checkpoints[n : n + 3]
        tts = QwenTTS.from_pretrained(checkpoint, dtype="float32", mesh=make_mesh(*map(int, sizes)))
        np.savez(Path(directory) / f"{n // 3}.{processes.number()}.npz", **generated(tts))
        try:
            Engine(tts)
        except RequestError as error:
            refusals.append(str(error))
    return {"refusals": refusals}


def train(directory, steps, mesh):
    """Train the small line task on a mesh, with a checkpoint every third step."""
    from qtts_jax.training.mesh import MeshConfig
    from tests.support.line_task import LineBatches
    from tests.training.test_trainer import trainer

    class SlowBatches(LineBatches):
        """Few steps are made until the test has seen a checkpoint."""

        def __next__(self):
            time.sleep(0.1)
            return super().__next__()

    config = MeshConfig(**json.loads(mesh), fsdp_min_size=8)
    run = trainer(
        Path(directory), SlowBatches(), steps=int(steps), save_every=3, keep=2, mesh=config
    )
    outcome = run.run()
    kernel = run.newest().params["one"]["kernel"]
    held = sum(shard.data.size for shard in kernel.addressable_shards) / kernel.size
    return {"step": outcome.step, "held": held, "processes": jax.process_count()}


def restore(directory):
    """Restore the array that the processes split, and count what this one has and peaks at."""
    import jax.numpy as jnp

    from qtts_jax.io.checkpoint import load_params
    from qtts_jax.sharding import rows

    size = 1 << 20
    tree = {"table": jax.ShapeDtypeStruct((64, size), jnp.float32)}
    before = processes.peak_memory()
    table = load_params(directory, tree, sharding=rows(make_mesh(8, 1)))["table"]
    shards = table.addressable_shards
    right = all(
        float(shard.data[i, 0]) == shard.index[0].start + i for shard in shards for i in range(8)
    )
    return {
        "read": sum(shard.data.nbytes for shard in shards) / table.nbytes,
        "right": right,
        "peak": (processes.peak_memory() - before) / table.nbytes,
    }


def main():

    number, port, what, *arguments = sys.argv[1:]
    options = argparse.Namespace(
        coordinator=f"127.0.0.1:{port}", process=int(number), processes=2, cluster=False
    )
    processes.start(options)
    functions = {"inference": inference, "restore": restore, "train": train}
    print(json.dumps(functions[what](*arguments)))


if __name__ == "__main__":
    main()
