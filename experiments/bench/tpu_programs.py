"""Library of `experiments.bench.tpu_compile`: programs lowered for TPUs, without TPU or weights.

A `Case` names one program, its sizes, a chip and a mesh; `lower` returns what `compile()` makes a
TPU program of, and the least bytes and FLOPs that one device must read and do for it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from experiments import command
from experiments.bench.train import make_batch, model_config
from qtts_jax.configs import presets
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tokenizer_12hz import Quirks12Hz
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params, abstract, cast, logical_axes
from qtts_jax.generation.batch import host_batch
from qtts_jax.generation.packed_rows import Layout, pack
from qtts_jax.generation.programs import Programs, programs
from qtts_jax.generation.prompt import Prompt
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import FRAMES_PER_CALL, MIN_CAPACITY
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.models.tokenizer_25hz.schedule import schedule
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.sharding import CACHE_AXES, make_mesh, mesh_axes, named, rows, shardings, whole
from qtts_jax.speech_tokenizer.programs_12hz import programs_12hz
from qtts_jax.speech_tokenizer.programs_25hz_decode import GUIDANCE, STEPS, decode_programs
from qtts_jax.speech_tokenizer.programs_speech import frames_and_audio_program
from qtts_jax.training.mesh import MeshConfig, TrainingMesh
from qtts_jax.training.optimizer import OptimizerConfig, optimizer
from qtts_jax.training.state import first_state, state_shardings
from qtts_jax.training.step import make_step
from qtts_jax.training.talker.flops import talker_flops
from qtts_jax.training.talker.task import TalkerTask, TalkerTaskConfig

SIZES = {"0.6B": "0b6", "1.7B": "1b7"}
FRAME_SECONDS = 0.08
PROMPT = 51


class Chip(NamedTuple):
    """One JAX device of a TPU generation, by its vendor's figures.

    Attributes:
        hbm_gib, hbm_gb_s, tflops: memory, its bandwidth, dense bfloat16 products.
        clock_ghz: turns the compiler's cycles into time; None where it is not known.
        cores: JAX devices of a chip.
        shapes: topology of 1, 2, 4, ... chips.
    """

    hbm_gib: float
    hbm_gb_s: float
    tflops: float
    clock_ghz: float | None
    cores: int
    shapes: tuple[str, ...]


FLAT = ("1x1", "1x2", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("1x1x1", "2x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")
# Per JAX device: a chip of TPU7x is two of them.
CHIPS = {
    "v5e": Chip(16, 819, 197, 1.5, 1, FLAT),
    "v5p": Chip(95, 2765, 459, 1.75, 1, CUBES),
    "v6e": Chip(32, 1638, 918, 1.75, 1, FLAT),
    "tpu7x": Chip(96, 3690, 1153.5, None, 2, CUBES),
}


@dataclass(frozen=True)
class Case:
    """One program to compile.

    Attributes:
        program: a name of `PROGRAMS`.
        chip: a name of `CHIPS`.
        data, model, fsdp: mesh axes, in JAX devices; `fsdp` is for training only.
        size: of the talker, "0.6B" or "1.7B"; the codecs have one size.
        batch: rows of a device of the data and fsdp axes.
        layers: of the talker; 0 for all of them.
        capacity: positions of the key/value caches; 0 for what the package chooses.
        frames: frames of a chunk (`chunk`) or of a codec call (`decode`, `encode`).
        positions: of a training row.
        dtype: of weights and activations (training: of activations).
    """

    program: str
    chip: str = "v5e"
    data: int = 1
    model: int = 1
    size: str = "0.6B"
    batch: int = 1
    layers: int = 0
    capacity: int = 0
    frames: int = 4
    positions: int = 2048
    fsdp: int = 1
    dtype: str = "bfloat16"

    @property
    def rows(self) -> int:
        """Rows of all devices."""
        return self.batch * self.data * self.fsdp


class Lowered(NamedTuple):
    """A lowered program and what one device must at least do for a call of it.

    Attributes:
        floor_bytes: bytes of HBM read or written once, None for "arguments and results"; what does
            not fit into a chip's memory and is used again counts again.
        floor_flops: FLOPs, None for what the compiled program does.
        frames: frames of 80 ms that every row makes a call; 0 where none are made.
        frame_loop: the frame loop counts as one frame (`tpu_hlo`), and only its body is counted.
    """

    lowered: Any
    floor_bytes: float | None = None
    floor_flops: float | None = None
    frames: float = 0
    frame_loop: bool = False


def topology_devices(case: Case) -> list[Any]:
    """As many devices as the mesh needs, of the smallest topology of the chip that has them."""
    chip, count = CHIPS[case.chip], case.data * case.fsdp * case.model
    chips = math.ceil(count / chip.cores)
    shape = chip.shapes[math.ceil(math.log2(chips))]
    # Hosts have four chips; smaller slices are a host of their own.
    host = {"chips_per_host_bounds": [int(n) for n in f"{shape}x1x1".split("x")[:3]]}
    found = topologies.get_topology_desc(
        platform="tpu", topology_name=f"{case.chip}:{shape}", **(host if chips < 4 else {})
    )
    return list(found.devices)[:count]


class Placement:
    """Shapes with the shardings that arrays of a case have."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.mesh = make_mesh(case.data, case.model, topology_devices(case))
        self.dtype = jnp.dtype(case.dtype)

    def rows(self, tree: Any) -> Any:
        """Shapes of arrays with the rows of a batch first."""
        return jax.tree.map(lambda x: _shape(x, rows(self.mesh)), tree)

    def params(self, module: Any, config: Any) -> Any:
        """Shapes of parameters in the dtype of the case, split by their logical axes."""
        shapes = self._shapes(module, config)
        split = shardings(self.mesh, logical_axes(module, config), shapes)
        return jax.tree.map(_shape, shapes, split)

    def whole(self, module: Any, config: Any, part: str) -> Any:
        """Shapes of one part of the parameters, all of it on every device."""
        return jax.tree.map(
            lambda x: _shape(x, whole(self.mesh)), self._shapes(module, config)[part]
        )

    def _shapes(self, module: Any, config: Any) -> Params:
        return jax.eval_shape(lambda p: cast(p, self.dtype), abstract(module, config)[1])


def _shape(x: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def tts_config(case: Case) -> TTSConfig:
    """The released configuration, with fewer layers if the case says so."""
    config = presets.tts_12hz(SIZES[case.size], "base")
    return _with_layers(config, case.layers)


def _with_layers(config: TTSConfig, layers: int) -> TTSConfig:
    talker = config.talker
    stack = dataclasses.replace(talker.transformer, layers=layers or talker.transformer.layers)
    return dataclasses.replace(config, talker=dataclasses.replace(talker, transformer=stack))


def _requests(config: TTSConfig, rows: int) -> list[Request]:
    """Sampled requests whose prompts have PROMPT positions."""
    prompt = Prompt(
        text=np.zeros(PROMPT, np.int32),
        codec=np.zeros(PROMPT, np.int32),
        residual=np.full((PROMPT, config.talker.codebooks - 1), -1, np.int32),
        speaker=np.zeros(PROMPT, bool),
        embedding=None,
        trailing=np.zeros(32, np.int32),
    )
    return [Request(prompt, SamplingParams(max_new_tokens=1000), seed) for seed in range(rows)]


class _Generation(NamedTuple):
    """Arguments of the programs that generate frames."""

    config: TTSConfig
    programs: Programs
    params: Any
    inputs: Any  # packed
    layout: Layout
    methods: Any
    capacity: int


def _generation(at: Placement) -> _Generation:
    case, config = at.case, tts_config(at.case)
    compiled = programs(config, at.mesh)
    inputs, methods = host_batch(
        config, _requests(config, case.rows), multiple=compiled.row_multiple
    )
    packed, layout = pack(inputs)
    return _Generation(
        config,
        compiled,
        at.params(TTSModel, config),
        at.rows(packed),
        layout,
        methods,
        case.capacity or MIN_CAPACITY,
    )


def _start_of(g: _Generation) -> Any:
    """The prefill program, a function of parameters and packed inputs."""
    return jax.jit(partial(g.programs.start, layout=g.layout, capacity=g.capacity))


def _prefill(at: Placement) -> Lowered:
    g = _generation(at)
    talker = g.params["talker"]
    # Of the tables only the rows of the prompts are read.
    read = _device_bytes((talker["transformer"], talker["codec_head"]))
    return Lowered(_start_of(g).lower(g.params, g.inputs), read)


def _started(at: Placement, g: _Generation) -> tuple[Any, Any]:
    """Shapes of state and conditions after the prefill, with rows and key/value heads split."""
    state, conditions = jax.eval_shape(_start_of(g), g.params, g.inputs)
    caches = jax.tree.map(
        lambda x: _shape(x, named(at.mesh, CACHE_AXES, x.shape)), state.talker.layers
    )
    state = at.rows(state)
    state = state._replace(talker=state.talker._replace(layers=caches))
    return state, at.rows(conditions)


def _frames(at: Placement) -> Lowered:
    g = _generation(at)
    state, conditions = _started(at, g)
    lowered = g.programs.run.lower(
        g.params, conditions, state, methods=g.methods, frames=FRAMES_PER_CALL
    )
    return Lowered(lowered, *_frame_floor(at.case, g, state), frames=1, frame_loop=True)


def _chunk(at: Placement) -> Lowered:
    g, speech = _generation(at), presets.tokenizer_12hz()
    state, conditions = _started(at, g)
    decoder = at.whole(Tokenizer12Hz, speech, "decoder")
    codec = programs_12hz(speech, Quirks12Hz(), at.mesh)
    audio = codec.decoder_state.eval_shape(decoder, state.done.shape[0])
    lowered = frames_and_audio_program(g.config, speech, at.mesh).lower(
        g.params,
        decoder,
        conditions,
        state,
        at.rows(audio),
        methods=g.methods,
        frames=at.case.frames,
    )
    read, _ = _frame_floor(at.case, g, state)
    read = at.case.frames * read + _device_bytes(decoder)
    return Lowered(lowered, read, frames=at.case.frames)


def _frame_floor(case: Case, g: _Generation, state: Any) -> tuple[float, float]:
    """Bytes and FLOPs of one frame on one device.

    A frame reads every weight of the talker and its head once, those of the code predictor once for
    each of its codebooks (they do not fit into a chip's memory), each of its heads once, and the
    caches whole.
    """
    talker, predictor = g.params["talker"], g.params["code_predictor"]
    once = _elements((talker["transformer"], talker["codec_head"], predictor["heads"]))
    inner = _elements((predictor["transformer"], predictor.get("input_projection", {})))
    books, stack = g.config.talker.codebooks - 1, g.config.talker.transformer
    caches = _elements(state.talker.layers)
    item = jnp.dtype(case.dtype).itemsize
    read = item * (once + books * inner + caches)
    products = 2 * case.batch * (once + (books + 1) * inner)
    return read, products + 2 * caches * stack.heads / stack.kv_heads


def _decode(at: Placement) -> Lowered:
    speech, case = presets.tokenizer_12hz(), at.case
    codec = programs_12hz(speech, Quirks12Hz(), at.mesh)
    params = at.whole(Tokenizer12Hz, speech, "decoder")
    state = codec.decoder_state.eval_shape(params, case.rows)
    codes = jax.ShapeDtypeStruct((case.rows, case.frames, speech.codebooks), jnp.int32)
    lowered = codec.decode.lower(params, at.rows(codes), at.rows(state))
    return Lowered(lowered, frames=case.frames)


def _encode(at: Placement) -> Lowered:
    speech, case = presets.tokenizer_12hz(), at.case
    codec = programs_12hz(speech, Quirks12Hz(), at.mesh)
    params = at.whole(Tokenizer12Hz, speech, "encoder")
    state = codec.encoder_state.eval_shape(params, case.rows, None)
    samples = case.frames * speech.encoder.samples_per_frame
    wave = jax.ShapeDtypeStruct((case.rows, samples), at.dtype)
    lengths = jax.ShapeDtypeStruct((case.rows,), jnp.int32)
    lowered = codec.encode.lower(params, at.rows(wave), at.rows(lengths), at.rows(state))
    return Lowered(lowered, frames=case.frames)


def _block_25hz(at: Placement) -> Lowered:
    """A streaming step of the 25 Hz decoder: one attention block of codes."""
    config, count = presets.tokenizer_25hz(), at.case.rows
    decoder, dit = decode_programs(config.decoder, at.mesh), config.decoder.dit
    params, plan = at.whole(Tokenizer25Hz, config, "decoder"), schedule(STEPS)

    def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return at.rows(jax.ShapeDtypeStruct((count, *shape), dtype))

    lengths, reference = array(dtype=jnp.int32), array(384, dit.n_mels)
    voice = decoder.condition.eval_shape(params, array(dit.xvector_width), reference, lengths)
    keys = jax.eval_shape(jax.vmap(jax.random.key), array(dtype=jnp.uint32))
    state = decoder.init_state.eval_shape(params, count, plan.slopes, 1)
    lowered = decoder.step_blocks.lower(
        params,
        array(decoder.block_codes, dtype=jnp.int32),
        at.rows(keys),
        lengths,
        at.rows(voice),
        plan,
        jnp.float32(GUIDANCE),
        at.rows(state),
        1,
    )
    return Lowered(lowered, frames=decoder.block_codes / 25 / FRAME_SECONDS)


def _train(case: Case) -> Lowered:
    config = _with_layers(model_config(case.size), case.layers)
    task = TalkerTask(
        TalkerTaskConfig(config, dtype=case.dtype, predictor_chunk=4096, remat="blocks")
    )
    rules = {name: OptimizerConfig(1e-4) for name in ("talker", "code_predictor")}
    updates = {name: optimizer(rule) for name, rule in rules.items()}
    mesh = TrainingMesh(MeshConfig(case.data, case.fsdp, case.model), topology_devices(case))

    def begin() -> Any:
        params, extras = task.init(jax.random.key(0))
        return first_state(params, extras, updates, jax.random.key(1), False)

    shapes = jax.eval_shape(begin)
    split = state_shardings(mesh, task, updates, shapes)
    batch = make_batch(config, case.rows, case.positions)
    batch_rows = NamedSharding(mesh.mesh, PartitionSpec(mesh_axes(mesh.mesh, "batch")))
    step = jax.jit(
        mesh.traced(make_step(task, rules, updates, 1, None)),
        donate_argnums=0,
        out_shardings=(split, mesh.replicated),
    )
    lowered = step.lower(
        jax.tree.map(_shape, shapes, split), jax.tree.map(lambda x: _shape(x, batch_rows), batch)
    )
    frames = int(batch["frames"][0])
    flops = case.batch * talker_flops(config, case.positions, frames) / case.model
    return Lowered(lowered, None, flops, frames)


INFERENCE: dict[str, Callable[[Placement], Lowered]] = {
    "prefill": _prefill,
    "frames": _frames,
    "chunk": _chunk,
    "decode": _decode,
    "encode": _encode,
    "block_25hz": _block_25hz,
}

PROGRAMS = (*INFERENCE, "train")


def lower(case: Case) -> Lowered:
    """The program of a case, lowered for the TPU."""
    if case.program == "train":
        return _train(case)
    return INFERENCE[case.program](Placement(case))


def _elements(tree: Any) -> int:
    """Elements of one device's share."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree))


def _device_bytes(tree: Any) -> int:
    """Bytes of one device's share."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.bench.tpu_compile"))
