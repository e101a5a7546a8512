"""Damaged or unfitting checkpoints: one error that names everything, and nothing left behind."""

import errno
import json
import os
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert import safetensors_stream
from convert.to_orbax import to_orbax
from convert.to_torch import to_torch
from qtts_jax.errors import CheckpointError, ConfigError
from qtts_jax.io import streamed_arrays
from qtts_jax.io.checkpoint import (
    MARKER,
    flatten_params,
    iterate_params,
    save_params,
    stored_params,
)

Q = "talker.model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def source(released, tmp_path):
    shutil.copytree(released / "base", tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def exportable(converted):
    """The converted `base` checkpoint; read only."""
    return converted("base")


def edit(folder, change):
    arrays = load_file(folder / "model.safetensors")
    change(arrays)
    save_file(arrays, folder / "model.safetensors")


def failing(convert, source, error=CheckpointError):
    """The message of the failure; checks that the destination and its folder stay clean."""
    destination = source.parent / "destination"
    with pytest.raises(error) as raised:
        convert(source, destination)
    assert [path for path in source.parent.iterdir() if "destination" in path.name] == []
    return str(raised.value)


def test_all_faults_of_both_folders_are_in_one_error(source):
    def change(arrays):
        arrays["talker.extra.weight"] = np.zeros(3, np.float32)
        arrays["talker.codec_head.weight"] = np.zeros((2, 3), np.float32)
        del arrays[Q]

    edit(source, change)
    edit(source / "speech_tokenizer", lambda arrays: arrays.pop("decoder.pre_conv.conv.bias"))
    message = failing(to_orbax, source)
    assert "1 keys have no place in the model: talker.extra.weight" in message
    assert "talker.codec_head.weight [2, 3] (expected [1088, 96])" in message
    assert "2 keys are missing" in message
    kernel = "talker/transformer/layers/1/attention/qkv/kernel[:, :-2]"
    assert f"{Q} (for {kernel})" in message
    assert "decoder.pre_conv.conv.bias (for decoder/pre_conv/bias)" in message


def test_key_in_two_shards_is_a_fault(source):
    arrays = load_file(source / "model.safetensors")
    (source / "model.safetensors").rename(source / "first.safetensors")
    save_file({Q: arrays[Q]}, source / "other.safetensors")
    index = '{"weight_map": {"a": "first.safetensors", "b": "other.safetensors"}}'
    (source / "model.safetensors.index.json").write_text(index)
    message = failing(to_orbax, source)
    assert f"1 keys are stored twice: {Q} in first.safetensors and other.safetensors" in message


def test_mixed_dtypes_of_one_parameter_are_widened_and_reported(source, tmp_path):
    half = load_file(source / "model.safetensors")[Q].astype(ml_dtypes.bfloat16)
    edit(source, lambda arrays: arrays.update({Q: half}))
    messages = []
    to_orbax(source, tmp_path / "destination", report=messages.append)
    kernel = "talker/transformer/layers/1/attention/qkv/kernel"
    assert any(f"{kernel} is stored in bfloat16, float32; it is" in text for text in messages)
    assert stored_params(tmp_path / "destination")[kernel].dtype == np.float32
    to_torch(tmp_path / "destination", tmp_path / "back", report=messages.append)
    back = load_file(tmp_path / "back" / "model.safetensors")[Q]
    np.testing.assert_array_equal(back, half.astype(np.float32))


def test_speaker_encoder_of_a_type_without_one_is_left_out_and_reported(source, tmp_path):
    """Fine-tuned Base models keep the tensors; the official class ignores them."""
    config = json.loads((source / "config.json").read_text())
    config |= {"tts_model_type": "custom_voice"}
    config["talker_config"] |= {"spk_id": {"ada": 1000}, "spk_is_dialect": {"ada": False}}
    (source / "config.json").write_text(json.dumps(config))
    messages = []
    to_orbax(source, tmp_path / "destination", report=messages.append)
    assert any("tensors of speaker_encoder are left out" in text for text in messages)
    assert not any(name.startswith("speaker") for name in stored_params(tmp_path / "destination"))


@pytest.mark.parametrize("table", ["spk_id", "codec_language_id"])
@pytest.mark.parametrize("number", [3000, -1])
def test_an_id_outside_the_embedding_is_refused(source, table, number):
    config = json.loads((source / "config.json").read_text())
    config["talker_config"].setdefault(table, {})["ada"] = number
    (source / "config.json").write_text(json.dumps(config))
    message = failing(to_orbax, source, ConfigError)
    assert f"{table}['ada'] is {number}, but the codec embedding has rows 0 to 1087" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(source, value):
    def change(arrays):
        arrays[Q] = arrays[Q].copy()
        arrays[Q][1, 2] = value

    edit(source, change)
    assert f"{Q} holds NaN or infinite values" in failing(to_orbax, source)


def test_integer_weights_are_refused(source):
    edit(source, lambda arrays: arrays.update({Q: arrays[Q].astype(np.int8)}))
    assert f"1 keys hold integers instead of floats: {Q} (int8)" in failing(to_orbax, source)


def test_missing_companions_are_refused(source):
    names = ["vocab.json", "merges.txt", "tokenizer_config.json", "generation_config.json"]
    for name in names:
        (source / name).unlink()
    assert f"4 files are missing (copy them from the released checkpoint): {', '.join(names)}" in (
        failing(to_orbax, source)
    )


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("vocab.json", "[]", "is not a table of tokens"),
        ("merges.txt", "a b c", "a merge that is not a pair"),
        ("tokenizer_config.json", "{", "is not valid JSON"),
        ("generation_config.json", "[]", "must hold a JSON object"),
        ("generation_config.json", '{"temperature": -1}', "generation_config.json: temperature"),
        ("generation_config.json", '{"max_new_tokens": 0}', "generation_config.json: max_new"),
    ],
)
def test_broken_companions_are_refused(source, name, content, fault):
    (source / name).write_text(content)
    message = failing(to_orbax, source)
    assert "files cannot be used" in message
    assert fault in message


def test_byte_order_marks_are_accepted(source, tmp_path):
    for path in [*source.glob("*.json"), source / "merges.txt"]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    to_orbax(source, tmp_path / "destination", report=lambda message: None)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_weights(source, keep):
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    assert "truncated or not a safetensors file" in failing(to_orbax, source)


def test_missing_weights(source):
    (source / "speech_tokenizer" / "model.safetensors").unlink()
    assert "neither model.safetensors nor" in failing(to_orbax, source)


def test_missing_speech_tokenizer(source):
    shutil.rmtree(source / "speech_tokenizer")
    assert "speech_tokenizer is not a checkpoint folder" in failing(to_orbax, source)


def test_missing_config(source):
    (source / "config.json").unlink()
    assert "it has no config.json" in failing(to_orbax, source)


def test_unknown_model_type(source):
    (source / "config.json").write_text('{"model_type": "llama"}')
    assert "has model_type 'llama'; supported are qwen3_tts" in failing(to_orbax, source)


def test_config_that_describes_no_model(source):
    (source / "config.json").write_text('{"model_type": "qwen3_tts"}')
    failing(to_orbax, source, ConfigError)


def test_converted_folder_is_not_converted_again(exportable, tmp_path):
    with pytest.raises(CheckpointError, match=r"is already converted.*--to-torch"):
        to_orbax(exportable, tmp_path / "destination")


def test_torch_folder_cannot_be_exported(source):
    assert f"python -m convert {source} DESTINATION" in failing(to_torch, source)


@pytest.mark.parametrize("convert", [to_orbax, to_torch])
def test_existing_destination_is_refused_unless_told(source, exportable, tmp_path, convert):
    origin = source if convert is to_orbax else exportable
    destination = tmp_path / "destination"
    destination.mkdir()
    (destination / "precious").touch()
    with pytest.raises(CheckpointError, match="already exists"):
        convert(origin, destination)
    with pytest.raises(CheckpointError, match="was not made by this package"):
        convert(origin, destination, overwrite=True)
    assert (destination / "precious").exists()
    (destination / MARKER).touch()
    convert(origin, destination, overwrite=True)
    convert(origin, destination, overwrite=True)
    assert not (destination / "precious").exists()
    assert (destination / "config.json").exists()


@pytest.mark.parametrize(
    ("convert", "place"),
    [
        *((c, p) for c in (to_orbax, to_torch) for p in ("source", "source/speech_tokenizer", ".")),
        (to_torch, "source/params"),
    ],
)
def test_overwriting_never_deletes_the_source(source, exportable, tmp_path, convert, place):
    if convert is to_torch:
        shutil.rmtree(source)
        shutil.copytree(exportable, source)
    before = {path: path.stat().st_size for path in source.rglob("*")}
    with pytest.raises(CheckpointError, match="which is read for it"):
        convert(source, tmp_path / place, overwrite=True)
    assert {path: path.stat().st_size for path in source.rglob("*")} == before


FAULTS = [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), MemoryError()]


def fail_on_call(monkeypatch, owner, name, number, fault):
    """Let `owner.name` raise `fault` on its `number`-th call, in the middle of the work."""
    original, calls = getattr(owner, name), []

    def wrapped(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            raise fault
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("convert", [to_orbax, to_torch])
def test_failure_in_the_middle_leaves_nothing_new(
    source, exportable, tmp_path, monkeypatch, convert, overwrite, fault
):
    origin = source if convert is to_orbax else exportable
    monkeypatch.setattr(streamed_arrays, "BATCH_BYTES", 50_000)  # so that some are on disk by then
    if convert is to_orbax:
        fail_on_call(monkeypatch, safetensors_stream.Tensor, "read_into", 30, fault)
    else:
        fail_on_call(monkeypatch, safetensors_stream.Writer, "write", 30, fault)
    work = tmp_path / "work"
    work.mkdir()
    if overwrite:
        (work / "destination").mkdir()
        (work / "destination" / MARKER).touch()
    full = isinstance(fault, OSError)
    with pytest.raises(CheckpointError if full else type(fault), match="is full" if full else None):
        convert(origin, work / "destination", overwrite=overwrite)
    assert [path.name for path in work.iterdir()] == (["destination"] if overwrite else [])
    if overwrite:
        assert [path.name for path in (work / "destination").iterdir()] == [MARKER]


def test_exporting_lists_all_faults_at_once(exportable, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(exportable, source)
    tree = dict(iterate_params(source))
    del tree["talker/codec_head/kernel"]
    tree["talker/extra"] = np.zeros(1, np.float32)
    tree["code_predictor/heads"] = tree["code_predictor/heads"][:3]
    save_params(source, tree)
    message = failing(to_torch, source)
    assert "1 parameters have no place in the model: talker/extra" in message
    assert "1 parameters are missing: talker/codec_head/kernel" in message
    assert "code_predictor/heads [3, 64, 64] (expected [15, 64, 64])" in message


def test_parameters_saved_by_this_package_can_be_exported(exportable, tmp_path):
    """Training saves a nested tree; the export needs nothing but it and the side files."""
    source = tmp_path / "source"
    shutil.copytree(exportable, source)
    shutil.rmtree(source / "params")
    (source / MARKER).unlink()
    nested = {}
    for name, array in iterate_params(exportable):
        *parents, last = name.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(int(parent) if parent.isdigit() else parent, {})
        node[last] = array * 2
    assert flatten_params(nested).keys() == stored_params(exportable).keys()
    save_params(source, nested)
    to_torch(source, tmp_path / "torch")
    name = "talker.text_projection.linear_fc1.bias"
    exported = load_file(tmp_path / "torch" / "model.safetensors")[name]
    want = dict(iterate_params(exportable))["talker/text_projection/up/bias"] * 2
    np.testing.assert_array_equal(exported, want)
