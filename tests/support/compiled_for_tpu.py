"""Run by test_compiled_for_tpu.py in a process with libtpu: compiles frame loops without a TPU.

    python compiled_for_tpu.py TOPOLOGY DATAxMODEL ROWS ...

Prints, for every mesh and number of rows, what the compiled program of a small model has.
"""

import dataclasses
import functools
import json
import os
import re
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
# libtpu asks the machine which TPU it has; these answers keep it from asking the network.
os.environ |= {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.functional import abstract, logical_axes
from qtts_jax.generation.batch import host_batch
from qtts_jax.generation.packed_rows import pack
from qtts_jax.generation.programs import programs
from qtts_jax.generation.prompt import Prompt
from qtts_jax.generation.request import Request
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.sharding import CACHE_AXES, make_mesh, named, rows, shardings
from tests.support.inference_on_eight_devices import model

HEAD = 128
WIDTHS = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "pred": 1, "s8": 1, "u8": 1}


def requests(config, count):
    prompt = Prompt(
        text=np.zeros(40, np.int32),
        codec=np.zeros(40, np.int32),
        residual=np.full((40, config.talker.codebooks - 1), -1, np.int32),
        speaker=np.zeros(40, bool),
        embedding=None,
        trailing=np.zeros(0, np.int32),
    )
    return [Request(prompt, SamplingParams(), i) for i in range(count)]


def configuration():
    """A small model with heads as wide as the released ones, by which layers choose their form."""
    config = model("12hz")[0]
    talker = config.talker
    predictor = talker.code_predictor
    wide = dataclasses.replace(
        talker,
        transformer=dataclasses.replace(talker.transformer, head_dim=HEAD),
        code_predictor=dataclasses.replace(
            predictor, transformer=dataclasses.replace(predictor.transformer, head_dim=HEAD)
        ),
    )
    return dataclasses.replace(config, talker=wide)


def frame_loop(mesh, count):
    """The compiled frame loop of a small model for `count` requests."""
    config = configuration()
    tree = abstract(TTSModel, config)[1]
    split = shardings(mesh, logical_axes(TTSModel, config), tree)

    def shape(x, place):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    params = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=s), tree, split
    )
    found = programs(config, mesh)
    inputs, methods = host_batch(config, requests(config, count), multiple=found.row_multiple)
    packed, layout = pack(inputs)
    start = functools.partial(found.start, layout=layout, capacity=256)
    state, conditions = jax.eval_shape(start, params, shape(packed, rows(mesh)))

    def place(x):
        cache = x.ndim == len(CACHE_AXES)
        return shape(x, named(mesh, CACHE_AXES, x.shape) if cache else rows(mesh))

    state, conditions = jax.tree.map(place, (state, conditions))
    lowered = found.run.lower(params, conditions, state, methods=methods, frames=8)
    return len(inputs.seeds), lowered.compile()


def bytes_of(line):
    """Bytes of the arrays that an instruction results in."""
    total = 0
    for kind, sizes in re.findall(r"(pred|[a-z]+\d+)\[([\d,]*)\]", line.split(" all-")[0]):
        total += WIDTHS[kind] * int(np.prod([int(n) for n in sizes.split(",") if n]))
    return total


def main():
    topology, *cases = sys.argv[1:]
    # Hosts have four chips; smaller slices are a host of their own.
    one = {"chips_per_host_bounds": [1, 1, 1]} if topology.endswith(":1x1") else {}
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology, **one)
    devices = found.devices
    report = {}
    for size, count in zip(cases[::2], cases[1::2], strict=True):
        mesh = make_mesh(*map(int, size.split("x")), devices=devices)
        batch, compiled = frame_loop(mesh, int(count))
        text = compiled.as_text()
        gathers = [
            bytes_of(x) for x in text.splitlines() if re.search(r" all-gather(-start)?\(", x)
        ]
        report[f"{size} {count}"] = {
            "rows": batch,
            "loops": len(re.findall(r" while\(", text)),
            "flops": compiled.cost_analysis()["flops"],
            "all_gathers": gathers,
            # Selections over whole caches [B, S, K, h], and kernels of ours.
            "cache_selects": len(re.findall(rf"= bf16\[\d+,\d+,\d+,{HEAD}\]\S* select\(", text)),
            "kernels": text.count('custom_call_target="tpu_custom_call"'),
            "collectives": len(
                re.findall(
                    r" (all-reduce|all-gather|all-to-all|collective-permute)(-start)?\(", text
                )
            ),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
