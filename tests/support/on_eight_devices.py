"""Run by test_parallel_training.py in a process with eight virtual devices.

    python on_eight_devices.py gradients|resume|first|frames DIRECTORY MESH ...

Trains the same steps on one device and on meshes, and prints what differs.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from qtts_jax.configs.tts import TransformerConfig
from qtts_jax.io.checkpoint import flatten_params
from qtts_jax.modules.transformer import Transformer
from qtts_jax.sharding import rows
from qtts_jax.training.mesh import MeshConfig, TrainingMesh
from qtts_jax.training.optimizer import OptimizerConfig
from qtts_jax.training.talker.full_sequence import run_stack
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig
from qtts_jax.training.trainer import Trainer
from qtts_jax.training.trainer_config import TrainerConfig
from tests.support.mesh_gradients import mesh_gradients
from tests.support.small_talker import batch_of, small

MESHES = {
    "one": MeshConfig(),
    "data": MeshConfig(data=8),
    "fsdp": MeshConfig(fsdp=8, fsdp_min_size=64),
    "data and fsdp": MeshConfig(data=4, fsdp=2, fsdp_min_size=64),
    "fsdp and model": MeshConfig(fsdp=4, model=2, fsdp_min_size=64),
}
MODEL = small(layers=1)
RULE = OptimizerConfig(1e-3, clip_norm=1.0)


class Same:
    """The same batch again and again."""

    def __init__(self):
        self.batch = batch_of(8)

    def __next__(self):
        return self.batch

    def state(self):
        return {}

    def restore(self, state):
        pass


def make(mesh, directory, steps, task=None, start=None):
    task = task or TalkerTask(TalkerTaskConfig(MODEL, dtype="float32"))
    config = TrainerConfig(
        steps=steps,
        optimizers={"talker": RULE, "code_predictor": RULE},
        mesh=mesh,
        log_every=1,
        tensorboard=False,
        progress=False,
    )
    return Trainer(task, Same(), config, directory, start=start)


def split_share(trainer):
    """Share of the parameter and moment elements that a device holds."""
    programs = trainer.programs
    shapes, splits = (
        jax.tree.leaves((x.params, x.optimizer)) for x in (programs.shapes, programs.shardings)
    )
    held = sum(np.prod(s.shard_shape(x.shape)) for x, s in zip(shapes, splits, strict=True))
    return float(held / sum(x.size for x in shapes))


def compare_gradients(directory, names):
    """Errors against one device, relative to the largest gradient."""
    report, wanted = {}, None
    for name in ("one", *names):
        trainer = make(MESHES[name], directory / name, 2)
        grads, _, metrics = mesh_gradients(trainer, batch_of(8))
        wanted = wanted or (grads, metrics)
        scale = max(float(np.abs(g).max()) for g in wanted[0].values())
        report[name] = {
            "gradient_error": max(
                float(np.abs(grads[n] - g).max()) / scale for n, g in wanted[0].items()
            ),
            "loss_error": abs(metrics["loss"] / wanted[1]["loss"] - 1),
            "share_on_a_device": split_share(trainer),
        }
    return report


def resume(directory, name):
    """Two steps on a mesh or on one device, then the third on one device, and how they differ."""
    last, moved = [], 0.0
    for way in ("one", name):
        trainer = make(MESHES[way], directory / way, 2)
        before = flatten_params(jax.device_get(trainer.programs.new().params))
        trainer.run()
        alone = make(MESHES["one"], directory / way, 3)
        assert alone.run().step == 3
        last.append(flatten_params(jax.device_get(alone.newest().params)))
        moved = max(float(np.abs(last[-1][n] - x).max()) for n, x in before.items())
    errors = np.concatenate([np.abs(last[0][n] - last[1][n]).ravel() for n in last[0]])
    return {"moved": moved, "mean_error": float(errors.mean()), "max_error": float(errors.max())}


def first_states(directory, name):
    """First states on a mesh against those on one device: random, given, and those of a run."""
    given = jax.jit(TalkerTask(TalkerTaskConfig(MODEL, dtype="float32")).init)(jax.random.key(7))[0]
    saved = make(MESHES["one"], directory / "run", 1)
    saved.run()
    weights = saved.save_weights(directory / "weights")
    report = {}
    for case, start, run in (
        ("random", None, None),
        ("given", given, None),
        ("run", None, weights),
    ):
        states = []
        for way in ("one", name):
            task = TalkerTask(TalkerTaskConfig(MODEL, dtype="float32"), start)
            trainer = make(MESHES[way], directory / case / way, 1, task, run)
            init, traced = task.init, []

            def look(*arguments, init=init, traced=traced):
                leaves = jax.tree.leaves(arguments)
                traced.append(all(isinstance(x, jax.core.Tracer) for x in leaves))
                return init(*arguments)

            task.init = look
            states.append(trainer._resume(None)[0])
        shardings = jax.tree.leaves(trainer.programs.shardings)
        places = zip(jax.tree.leaves(states[1]), shardings, strict=True)
        arrays = [flatten_params(jax.device_get(state)) for state in states]
        report[case] = {
            # The state of the mesh is made inside a program, which takes what it begins with.
            "traced": traced,
            "in_place": all(x.sharding == place for x, place in places),
            "error": max(
                float(np.abs(arrays[1][n].astype(np.float64) - x).max())
                for n, x in arrays[0].items()
            ),
        }
        # Steps donate the state, and the task still has what it began with.
        assert trainer.run().step == 1
        assert not any(x.is_deleted() for x in jax.tree.leaves(start))
    return report


def frame_attention():
    """Relative error of values and gradients of the frame kernel on the rows of eight devices."""
    config = TransformerConfig(
        width=32, layers=1, heads=4, kv_heads=2, head_dim=64, ffn_width=32, norm_eps=1e-6,
        rope_theta=100.0, max_positions=64, qk_norm=True, init_std=0.3,
    )  # fmt: skip
    graphdef, params = nnx.split(Transformer(config, rngs=nnx.Rngs(0)))
    x = jax.random.normal(jax.random.key(0), (8, 16, 32))
    split = TrainingMesh(MeshConfig(data=4, fsdp=2))

    def loss(params, x):
        y = run_stack(nnx.merge(graphdef, params), x, attention="frames")
        return jax.numpy.sum(jax.numpy.sin(y))

    grads = jax.value_and_grad(loss, argnums=(0, 1))
    one = jax.jit(lambda *a: grads(*a))(params, x)
    all_eight = jax.jit(split.traced(grads))(params, jax.device_put(x, rows(split.mesh)))
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(all_eight), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in jax.device_get(list(pairs)))


def main():
    assert jax.device_count() == 8
    what, directory, *names = sys.argv[1:]
    if what == "gradients":
        print(json.dumps(compare_gradients(Path(directory), names)))
    elif what == "frames":
        print(json.dumps(frame_attention()))
    elif what == "first":
        print(json.dumps(first_states(Path(directory), *names)))
    else:
        print(json.dumps(resume(Path(directory), *names)))


if __name__ == "__main__":
    main()
