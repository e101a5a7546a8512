"""The 25 Hz tokenizer through the converter, and the tables that it stores but does not learn."""

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert.__main__ import main
from convert.computed import rotary_frequencies, sinusoids
from convert.faults import Faults
from convert.models import build_model
from convert.rules import plan
from convert.to_orbax import to_orbax
from convert.to_torch import to_torch
from qtts_jax.configs.presets import tokenizer_25hz_class_defaults
from qtts_jax.errors import CheckpointError
from qtts_jax.io.checkpoint import iterate_params, save_params, stored_params

KEYS = Path(__file__).parents[1] / "golden" / "keys" / "keys_tokenizer_25hz_DEFAULTS.txt"
POSITIONS = "encoder.tokenizer.positional_embedding"
ANGLES = "decoder.dit.rotary_embed.inv_freq"


def quiet(message):
    pass


@pytest.fixture
def source(released, tmp_path):
    return shutil.copytree(released / "tokenizer_25hz", tmp_path / "source")


def edit(folder, change):
    arrays = load_file(folder / "model.safetensors")
    change(arrays)
    save_file(arrays, folder / "model.safetensors")


def there_and_back(source):
    to_orbax(source, source.parent / "orbax", report=quiet)
    to_torch(source.parent / "orbax", source.parent / "torch", report=quiet)
    return source.parent / "torch"


def assert_same_bits(got, want):
    got, want = (load_file(folder / "model.safetensors") for folder in (got, want))
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].shape == array.shape, name
        assert got[name].tobytes() == array.tobytes(), name


def test_every_tensor_of_the_class_defaults_has_its_place():
    model = build_model(tokenizer_25hz_class_defaults().to_hf(), "the class defaults")
    faults = Faults()
    parts = plan(model.rules, model.shapes, faults)
    faults.raise_any("the class defaults")  # every parameter is filled exactly once
    lines = [line.split("\t") for line in KEYS.read_text().splitlines() if line[0] != "#"]
    ours = {part.source: part.shape for part in [*parts, *model.computed]}
    assert ours == {key: tuple(json.loads(shape)) for key, shape in lines}
    assert len(parts) + len(model.computed) == len(lines) == 1333
    assert {table.source for table in model.computed} == {POSITIONS, ANGLES}


def test_round_trip_is_bit_exact(source):
    torch = there_and_back(source)
    assert_same_bits(torch, source)
    assert (torch / "config.json").read_bytes() == (source / "config.json").read_bytes()
    names = stored_params(source.parent / "orbax").keys()
    assert not {name for name in names if "position" in name and "positioned" not in name}


def test_bfloat16_round_trip_keeps_the_tables_in_bfloat16(source):
    weights = source / "model.safetensors"
    save_file({k: v.astype(ml_dtypes.bfloat16) for k, v in load_file(weights).items()}, weights)
    messages = []
    to_orbax(source, source.parent / "told", report=messages.append)
    told = [message for message in messages if "stored in bfloat16" in message]
    assert [name for name in (POSITIONS, ANGLES) if any(name in each for each in told)] == [
        POSITIONS,
        ANGLES,
    ]
    assert_same_bits(there_and_back(source), source)


def test_tables_beside_bfloat16_parameters_stay_exact(source):
    """The official model turns by the stored angles, so rounding them would change it."""

    def narrow(arrays):
        for name, array in arrays.items():
            if name not in (POSITIONS, ANGLES):
                arrays[name] = array.astype(ml_dtypes.bfloat16)

    edit(source, narrow)
    assert_same_bits(there_and_back(source), source)


def test_tables_of_parameters_saved_here_in_bfloat16_are_float32(source):
    want = load_file(source / "model.safetensors")
    orbax = source.parent / "orbax"
    to_orbax(source, orbax, report=quiet)
    tree = {k: v.astype(ml_dtypes.bfloat16) for k, v in iterate_params(orbax)}
    save_params(orbax, tree)
    to_torch(orbax, source.parent / "torch", report=quiet)
    exported = load_file(source.parent / "torch" / "model.safetensors")
    for name in (POSITIONS, ANGLES):
        assert exported[name].dtype == np.float32
        np.testing.assert_array_equal(exported[name], want[name])


def test_tables_are_made_by_the_formula(source):
    """A table that another library computed differs in its last bits, which is no fault."""

    def change(arrays):
        half = arrays[POSITIONS].shape[1] // 2
        phase = np.arange(len(arrays[POSITIONS]))[:, None] * 1e4 ** (-np.arange(half) / (half - 1))
        other = np.concatenate([np.sin(phase), np.cos(phase)], axis=1).astype(np.float32)
        assert (other != arrays[POSITIONS]).any()
        arrays[POSITIONS] = other

    want = load_file(source / "model.safetensors")[POSITIONS]
    edit(source, change)
    torch = load_file(there_and_back(source) / "model.safetensors")
    np.testing.assert_array_equal(torch[POSITIONS], want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop(POSITIONS), f"1 keys are missing: {POSITIONS} (for a computed table)"),
        (
            lambda a: a.update({POSITIONS: a[POSITIONS][:50].copy()}),
            f"1 keys have another shape: {POSITIONS} [50, 48] (expected [60, 48])",
        ),
        (
            lambda a: a.update({POSITIONS: np.roll(a[POSITIONS], 1, axis=0)}),
            f"1 computed tables have other values than their formula: {POSITIONS}",
        ),
        (
            lambda a: a.update({ANGLES: a[ANGLES] * 1.02}),
            f"1 computed tables have other values than their formula: {ANGLES}",
        ),
        (
            lambda a: a.update({ANGLES: np.full_like(a[ANGLES], np.nan)}),
            f"1 computed tables have other values than their formula: {ANGLES}",
        ),
        (
            lambda a: a.update({"encoder.tokenizer.conv3.bias": np.zeros(2, np.float32)}),
            "1 keys have no place in the model: encoder.tokenizer.conv3.bias",
        ),
    ],
)
def test_a_damaged_checkpoint_is_one_error_and_leaves_nothing(source, change, message):
    edit(source, change)
    with pytest.raises(CheckpointError) as error:
        to_orbax(source, source.parent / "orbax", report=quiet)
    assert message in str(error.value)
    assert [path.name for path in source.parent.iterdir()] == ["source"]


def test_dry_run_lists_the_computed_tables_both_ways(released, converted, capsys):
    assert main(["--dry-run", str(released / "tokenizer_25hz")]) == 0
    assert f"{POSITIONS} [60, 48] -> a computed table" in capsys.readouterr().out
    assert main(["--dry-run", "--to-torch", str(converted("tokenizer_25hz"))]) == 0
    assert f"{ANGLES} [8] <- a computed table" in capsys.readouterr().out


def test_formulas_of_the_tables():
    table = sinusoids("x", 7, 6)
    values = table.make()
    assert values.dtype == np.float32
    assert values.shape == table.shape
    np.testing.assert_allclose(values[0], [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(values[5, 1], np.sin(5 * 1e4**-0.5), rtol=1e-6)
    np.testing.assert_allclose(values[5, 5], np.cos(5e-4), rtol=1e-6)
    angles = rotary_frequencies("x", 8, 100.0).make()
    np.testing.assert_allclose(angles, [1, 100**-0.25, 0.1, 100**-0.75], rtol=1e-6)
