"""Weights of the Whisper encoder: extracted from a CTranslate2 model, and loaded again.

CTranslate2's `model.bin` is a sequence of named arrays (its `python/ctranslate2/specs/
model_spec.py` writes it). The decoder, two thirds of the file, is left out.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from qtts_jax.data.whisper import WhisperConfig, WhisperEncoder
from qtts_jax.errors import CheckpointError
from qtts_jax.functional import Params, abstract
from qtts_jax.io.atomic_directory import new_directory
from qtts_jax.io.atomic_files import write_whole
from qtts_jax.io.config_file import MARKER

CONFIG = "whisper_encoder.json"
PART_BYTES = 12 << 20
_BINARY_VERSION = 6
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def convert_whisper(
    source: str | os.PathLike[str], destination: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write the encoder of a Whisper model of CTranslate2 as a directory of small files.

    Args:
        source: `model.bin`, of float16 or float32 weights, or the directory that holds it.
        destination: takes the sizes as JSON and the weights, float16, as safetensors files of at
            most 12 MiB.

    Raises:
        CheckpointError: `source` is no such model, or `destination` exists.
    """
    path = Path(source)
    path = path / "model.bin" if path.is_dir() else path
    try:
        arrays = dict(read_variables(path.read_bytes(), "encoder/"))
    except (OSError, struct.error, KeyError, ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no Whisper model of CTranslate2 ({error}).") from error
    try:
        config, params = encoder_of(arrays)
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no unquantized Whisper model of CTranslate2: {error} is missing or odd."
        ) from error
    flat = {name: x.astype(np.float16) for name, x in _flatten(params)}
    with new_directory(Path(destination), overwrite) as partial:
        for number, part in enumerate(_parts(flat)):
            write_whole(partial / f"part-{number}.safetensors", save(part))
        write_whole(partial / CONFIG, json.dumps(asdict(config)).encode())
        write_whole(partial / MARKER, b'{"model": "whisper encoder"}\n')


def load_whisper(directory: str | os.PathLike[str]) -> tuple[WhisperConfig, Params]:
    """Sizes and float32 parameters that `convert_whisper` wrote.

    Raises:
        CheckpointError: the directory is not of that kind, or a file is missing or damaged.
    """
    root = Path(directory)
    try:
        config = WhisperConfig(**json.loads((root / CONFIG).read_text()))
        flat: dict[str, np.ndarray] = {}
        for part in sorted(root.glob("part-*.safetensors")):
            flat |= load_file(part)
        shapes = abstract(WhisperEncoder, config)[1]
        params = _fill(shapes, flat, "")
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{root} holds no Whisper encoder ({error}); make it with convert_whisper."
        ) from error
    return config, params


def read_variables(content: bytes, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a `model.bin` whose names begin with `prefix`.

    Raises:
        ValueError, KeyError, struct.error, UnicodeDecodeError: it is no such file.
    """
    place = 0

    def number(kind: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{kind}", content, place)
        place += struct.calcsize(f"<{kind}")
        return value

    def string() -> str:
        nonlocal place
        size = number("H")
        place += size
        return content[place - size : place].rstrip(b"\0").decode()

    version, spec = number("I"), string()
    if version != _BINARY_VERSION or spec != "WhisperSpec":
        raise ValueError(f"version {version} of {spec!r}")
    number("I")  # revision of the specification
    for _ in range(number("I")):
        name = string()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = number("B"), number("I")
        if name.startswith(prefix):
            dtype = np.dtype(_TYPES[kind])
            yield name, np.frombuffer(content, dtype, size // dtype.itemsize, place).reshape(shape)
        place += size


def encoder_of(arrays: dict[str, np.ndarray]) -> tuple[WhisperConfig, Params]:
    """Sizes and parameters of the encoder, in the dtype of the file.

    Raises:
        KeyError, ValueError: an array is missing or has another shape or type.
    """
    config = _config(arrays)
    return config, _params(arrays, config)


def _config(arrays: dict[str, np.ndarray]) -> WhisperConfig:
    width, n_mels, _ = arrays["encoder/conv1/weight"].shape
    layers = 0
    while f"encoder/layer_{layers}/ffn/linear_0/weight" in arrays:
        layers += 1
    return WhisperConfig(n_mels, width, int(arrays["encoder/num_heads"]), layers)


def _params(arrays: dict[str, np.ndarray], c: WhisperConfig) -> Params:
    """The tree of `WhisperEncoder`."""

    def array(name: str) -> np.ndarray:
        found = arrays[f"encoder/{name}"]
        if not np.issubdtype(found.dtype, np.floating):
            raise ValueError(name)
        return found

    def norm(name: str) -> Params:
        return {"scale": array(f"{name}/gamma"), "bias": array(f"{name}/beta")}

    def conv(name: str) -> Params:
        # [out, in, taps] there, [taps, in, out] here.
        return {"kernel": array(f"{name}/weight").T, "bias": array(f"{name}/bias")}

    def linear(name: str) -> Params:
        return {"kernel": array(f"{name}/weight"), "bias": array(f"{name}/bias")}

    def block(name: str) -> Params:
        heads, head = c.heads, c.width // c.heads
        qkv, out = (
            linear(f"{name}/self_attention/linear_0"),
            linear(f"{name}/self_attention/linear_1"),
        )
        biases = qkv["bias"].reshape(3, heads, head)
        if biases[1].any():
            raise ValueError("a zero bias of the keys")
        return {
            "attention_norm": norm(f"{name}/self_attention/layer_norm"),
            "attention": {
                "qkv": {"kernel": qkv["kernel"].reshape(3, heads, head, c.width)},
                "q_bias": biases[0],
                "v_bias": biases[2],
                "out": {
                    "kernel": out["kernel"].reshape(c.width, heads, head),
                    "bias": out["bias"],
                },
            },
            "ffn_norm": norm(f"{name}/ffn/layer_norm"),
            "up": linear(f"{name}/ffn/linear_0"),
            "down": linear(f"{name}/ffn/linear_1"),
        }

    return {
        "conv1": conv("conv1"),
        "conv2": conv("conv2"),
        "layers": {i: block(f"layer_{i}") for i in range(c.layers)},
        "norm": norm("layer_norm"),
    }


def _flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _flatten(value, f"{prefix}{name}.")
    else:
        yield prefix[:-1], np.ascontiguousarray(tree)


def _fill(shapes: Any, flat: dict[str, np.ndarray], prefix: str) -> Any:
    if isinstance(shapes, dict):
        return {name: _fill(value, flat, f"{prefix}{name}.") for name, value in shapes.items()}
    found = flat[prefix[:-1]]
    if found.shape != shapes.shape:
        raise ValueError(f"{prefix[:-1]} has the shape {found.shape}, not {shapes.shape}")
    return jax.numpy.asarray(found, jax.numpy.float32)


def _parts(flat: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    part: dict[str, np.ndarray] = {}
    size = 0
    for name, x in flat.items():
        if part and size + x.nbytes > PART_BYTES:
            yield part
            part, size = {}, 0
        part[name] = x
        size += x.nbytes
    yield part
