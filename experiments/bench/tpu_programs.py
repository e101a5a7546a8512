"""Lowers the package's programs for TPU topologies from shapes alone: no TPU, no weights.

A `Case` names one program, its sizes, a chip and a mesh; `lower` returns what `compile()` makes a
TPU program of, and the least bytes and FLOPs that one device must read and do for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.bench.train import make_batch, model_config
from qtts_jax.configs import presets
from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.configs.tokenizer_12hz import Quirks12Hz
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import Params, abstract, cast, logical_axes
from qtts_jax.generation.batch import host_batch
from qtts_jax.generation.programs import programs
from qtts_jax.generation.prompt import Prompt
from qtts_jax.generation.request import Request
from qtts_jax.generation.session import FRAMES_PER_CALL
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.models.tokenizer_25hz.schedule import schedule
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.sharding import shardings
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
CUBES = ("1x1x1", "1x2x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")
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
        data, model: mesh axes, in JAX devices.
        size: of the talker, "0.6B" or "1.7B"; the codecs have one size.
        batch: rows of a device of the data axis.
        layers: of the talker; 0 for all of them.
        capacity: positions of the key/value caches; 0 for what the package chooses.
        frames: frames of a chunk (`chunk`) or of a codec call (`decode`, `encode`).
        positions: of a training row.
        fsdp: split the training state over `data` too.
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
    fsdp: bool = False
    dtype: str = "bfloat16"

    @property
    def rows(self) -> int:
        """Rows of all devices."""
        return self.batch * self.data


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


@contextlib.contextmanager
def as_on_tpu() -> Iterator[None]:
    """Trace as on a TPU: the package asks `jax.default_backend()` which forms to choose."""
    own = jax.default_backend
    jax.default_backend = lambda: "tpu"
    try:
        yield
    finally:
        jax.default_backend = own


def topology_mesh(case: Case) -> Mesh:
    """Devices of the smallest topology of the chip that has as many as the mesh."""
    chip, count = CHIPS[case.chip], case.data * case.model
    chips = max(1, count // chip.cores)
    shape = chip.shapes[max(0, math.ceil(math.log2(chips)))]
    # Hosts have four chips; smaller slices are a host of their own.
    host = {"chips_per_host_bounds": [int(n) for n in f"{shape}x1x1".split("x")[:3]]}
    devices = topologies.get_topology_desc(
        platform="tpu", topology_name=f"{case.chip}:{shape}", **(host if chips < 4 else {})
    ).devices
    grid = np.asarray(devices[:count]).reshape(case.data, case.model)
    return Mesh(grid, ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


class Placement:
    """Shapes with the shardings that arrays of a case have."""

    def __init__(self, case: Case) -> None:
        self.case, self.mesh = case, topology_mesh(case)
        self.dtype = jnp.dtype(case.dtype)

    def place(self, tree: Any, *axes: str | None) -> Any:
        """Shapes of `tree`, all with the same mesh axes for their first dimensions."""
        sharding = NamedSharding(self.mesh, PartitionSpec(*axes))
        return jax.tree.map(lambda x: _shape(x, sharding), tree)

    def params(self, module: Any, config: Any, part: str | None = None, split: bool = True) -> Any:
        """Shapes of parameters in the dtype of the case, split by their logical axes or whole."""
        shapes: Params = abstract(module, config)[1]
        named = logical_axes(module, config)
        if part is not None:
            shapes, named = shapes[part], named[part]
        shapes = jax.eval_shape(lambda p: cast(p, self.dtype), shapes)
        if not split:
            return self.place(shapes)
        return jax.tree.map(_shape, shapes, shardings(self.mesh, named, shapes))

    def like(self, shapes: Any, compiled: Any) -> Any:
        """Shapes with the shardings of a compiled program's results."""
        return jax.tree.map(_shape, shapes, compiled)


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
    params: Any
    inputs: Any
    methods: Any
    capacity: int


def _generation(at: Placement) -> _Generation:
    case, config = at.case, tts_config(at.case)
    inputs, methods = host_batch(config, _requests(config, case.rows))
    return _Generation(
        config,
        at.params(TTSModel, config),
        at.place(inputs, "data"),
        methods,
        case.capacity or 256,
    )


def _prefill(at: Placement) -> Lowered:
    g = _generation(at)
    return Lowered(programs(g.config).start.lower(g.params, g.inputs, capacity=g.capacity))


def _started(at: Placement, g: _Generation) -> tuple[Any, Any]:
    """Shapes of state and conditions after the prefill, with rows and key/value heads split."""
    start = programs(g.config).start
    state, conditions = jax.eval_shape(
        lambda p, i: start(p, i, capacity=g.capacity), g.params, g.inputs
    )
    heads = g.config.talker.transformer.kv_heads
    axis = "model" if heads % at.case.model == 0 else None
    talker = state.talker
    layers = at.place(talker.layers, "data", None, axis)  # [B, S, K, h]
    state = at.place(state._replace(talker=talker._replace(layers=())), "data")
    state = state._replace(talker=state.talker._replace(layers=layers))
    return state, at.place(conditions, "data")


def _frames(at: Placement) -> Lowered:
    g = _generation(at)
    state, conditions = _started(at, g)
    lowered = programs(g.config).run.lower(
        g.params, conditions, state, methods=g.methods, frames=FRAMES_PER_CALL
    )
    return Lowered(lowered, *_frame_floor(at.case, g, state), frames=1, frame_loop=True)


def _chunk(at: Placement) -> Lowered:
    g, speech = _generation(at), presets.tokenizer_12hz()
    state, conditions = _started(at, g)
    decoder = at.params(Tokenizer12Hz, speech, "decoder", split=False)
    codec = programs_12hz(speech, Quirks12Hz())
    audio = jax.eval_shape(lambda p: codec._decoder_state(p, at.case.rows), decoder)
    frames = at.case.frames
    lowered = frames_and_audio_program(g.config, speech).lower(
        g.params,
        decoder,
        conditions,
        state,
        at.place(audio, "data"),
        methods=g.methods,
        frames=frames,
    )
    read, _ = _frame_floor(at.case, g, state)
    return Lowered(lowered, frames * read + _device_bytes(decoder), frames=frames)


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
    codec = programs_12hz(speech, Quirks12Hz())
    params = at.params(Tokenizer12Hz, speech, "decoder", split=False)
    state = jax.eval_shape(lambda p: codec._decoder_state(p, case.rows), params)
    codes = jax.ShapeDtypeStruct((case.rows, case.frames, speech.codebooks), jnp.int32)
    lowered = codec.decode.lower(params, at.place(codes, "data"), at.place(state, "data"))
    return Lowered(lowered, frames=case.frames)


def _encode(at: Placement) -> Lowered:
    speech, case = presets.tokenizer_12hz(), at.case
    codec = programs_12hz(speech, Quirks12Hz())
    params = at.params(Tokenizer12Hz, speech, "encoder", split=False)
    state = jax.eval_shape(lambda p: codec._encoder_state(p, case.rows, None), params)
    samples = case.frames * speech.encoder.samples_per_frame
    wave = jax.ShapeDtypeStruct((case.rows, samples), at.dtype)
    lengths = jax.ShapeDtypeStruct((case.rows,), jnp.int32)
    wave, lengths, state = at.place((wave, lengths, state), "data")
    return Lowered(codec.encode.lower(params, wave, lengths, state), frames=case.frames)


def _block_25hz(at: Placement) -> Lowered:
    """A streaming step of the 25 Hz decoder: one attention block of codes."""
    config, case = presets.tokenizer_25hz(), at.case
    decoder, rows = decode_programs(config.decoder), case.rows
    params = at.params(Tokenizer25Hz, config, "decoder", split=False)
    dit, plan = config.decoder.dit, schedule(STEPS)

    def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype)

    lengths = array(dtype=jnp.int32)
    voice = jax.eval_shape(
        decoder._condition, params, array(dit.xvector_width), array(384, dit.n_mels), lengths
    )
    keys = jax.eval_shape(jax.vmap(jax.random.key), array(dtype=jnp.uint32))
    state = jax.eval_shape(lambda p: decoder._init_state(p, rows, plan.slopes, 1), params)
    codes = array(decoder.block_codes, dtype=jnp.int32)
    codes, keys, lengths, voice, state = at.place((codes, keys, lengths, voice, state), "data")
    lowered = decoder.step_blocks.lower(
        params, codes, keys, lengths, voice, plan, jnp.float32(GUIDANCE), state, 1
    )
    return Lowered(lowered, frames=decoder.block_codes * 0.04 / FRAME_SECONDS)


class _TopologyMesh(TrainingMesh):
    """A `TrainingMesh` of devices that this process does not have."""

    def __init__(self, config: MeshConfig, mesh: Mesh) -> None:
        self.config, self.mesh = config, mesh
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.rows = NamedSharding(mesh, PartitionSpec(None, "data"))


def _train(at: Placement) -> Lowered:
    case, config = at.case, _with_layers(model_config(at.case.size), at.case.layers)
    task = TalkerTask(
        TalkerTaskConfig(config, dtype=case.dtype, predictor_chunk=4096, remat="blocks")
    )
    rules = {name: OptimizerConfig(1e-4) for name in ("talker", "code_predictor")}
    updates = {name: optimizer(rule) for name, rule in rules.items()}
    mesh = _TopologyMesh(MeshConfig(case.data, case.model, case.fsdp), at.mesh)

    def begin() -> Any:
        params, extras = task.init(jax.random.key(0))
        return first_state(params, extras, updates, jax.random.key(1), False)

    shapes = jax.eval_shape(begin)
    split = state_shardings(mesh, task, updates, shapes)
    host = make_batch(config, case.rows, case.positions)
    step = jax.jit(
        make_step(task, rules, updates, 1, None),
        donate_argnums=0,
        out_shardings=(split, mesh.replicated),
    )
    lowered = step.lower(jax.tree.map(_shape, shapes, split), at.place(host, "data"))
    frames = int(host["frames"][0])
    flops = case.batch * talker_flops(config, case.positions, frames) / case.model
    return Lowered(lowered, None, flops, frames)


PROGRAMS: dict[str, Callable[[Placement], Lowered]] = {
    "prefill": _prefill,
    "frames": _frames,
    "chunk": _chunk,
    "decode": _decode,
    "encode": _encode,
    "block_25hz": _block_25hz,
    "train": _train,
}


def lower(case: Case) -> Lowered:
    """The program of a case, lowered for the TPU."""
    with as_on_tpu():
        return PROGRAMS[case.program](Placement(case))


def _elements(tree: Any) -> int:
    """Elements of one device's share."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree))


def _device_bytes(tree: Any) -> int:
    """Bytes of one device's share."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )
