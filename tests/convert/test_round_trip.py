"""Released layout -> Orbax -> released layout gives the same bits and the same side files."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from convert import models
from convert.to_orbax import to_orbax
from convert.to_torch import to_torch
from qtts_jax.configs.tts import TTSConfig
from qtts_jax.functional import abstract
from qtts_jax.io.checkpoint import flatten_params, load_params, read_config
from qtts_jax.models.tts_model import TTSModel


def quiet(message):
    pass


def there_and_back(source, folder):
    to_orbax(source, folder / "orbax", report=quiet)
    to_torch(folder / "orbax", folder / "torch", report=quiet)
    return folder / "orbax", folder / "torch"


def tensors(folder):
    found = {}
    for path in sorted(folder.rglob("*.safetensors")):
        for name, array in load_file(path).items():
            found[f"{path.parent.relative_to(folder)}:{name}"] = array
    return found


def assert_same_bits(got, want):
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].shape == array.shape, name
        assert got[name].tobytes() == array.tobytes(), name


def side_files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "safetensors" not in path.name
    }


def test_the_model_of_a_folder_is_not_built_for_each_tensor(released, tmp_path, monkeypatch):
    built, build = [], models.build_model
    monkeypatch.setattr(models, "build_model", lambda *a: built.append(a) or build(*a))
    to_orbax(released / "custom_voice", tmp_path / "orbax", report=quiet)
    assert len(built) < 10  # of two folders with hundreds of tensors


@pytest.mark.parametrize("name", ["base", "custom_voice", "voice_design"])
def test_round_trip_is_bit_exact(released, tmp_path, name):
    orbax, torch = there_and_back(released / name, tmp_path)
    assert_same_bits(tensors(torch), tensors(released / name))
    assert side_files(torch) == side_files(released / name)
    for file, content in side_files(released / name).items():
        assert (orbax / file).read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orbax", "torch"]
    with safe_open(torch / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_bfloat16_stays_bfloat16_beside_a_float32_tokenizer(released, tmp_path):
    """The released files are so: the model in bfloat16, its speech tokenizer in float32."""
    source = tmp_path / "source"
    shutil.copytree(released / "custom_voice", source)
    weights = source / "model.safetensors"
    save_file({k: v.astype(ml_dtypes.bfloat16) for k, v in load_file(weights).items()}, weights)
    _, torch = there_and_back(source, tmp_path)
    assert_same_bits(tensors(torch), tensors(source))
    assert {str(v.dtype) for k, v in tensors(torch).items() if k[0] == "."} == {"bfloat16"}


def test_any_sharding_gives_the_same_parameters(released, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(released / "base", source)
    arrays = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    weight_map = {name: f"model-{i % 3}.safetensors" for i, name in enumerate(sorted(arrays))}
    for shard in set(weight_map.values()):
        part = {name: arrays[name] for name, file in weight_map.items() if file == shard}
        save_file(part, source / shard)
    index = source / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    orbax, torch = there_and_back(source, tmp_path)
    assert_same_bits(tensors(torch), tensors(released / "base"))
    assert not list(orbax.rglob("*safetensors*"))


def test_tokenizer_alone_round_trips(released, tmp_path):
    source = released / "base" / "speech_tokenizer"
    orbax, torch = there_and_back(source, tmp_path)
    assert_same_bits(tensors(torch), tensors(source))
    assert side_files(torch) == side_files(source)
    assert (orbax / "params").is_dir()


def test_signed_zeros_subnormals_and_extremes_survive(released, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(released / "base" / "speech_tokenizer", source)
    arrays = load_file(source / "model.safetensors")
    odd = np.array([-0.0, 1e-45, -3.4e38, 3.4e38], np.float32)
    arrays["decoder.pre_conv.conv.bias"][:4] = odd
    save_file(arrays, source / "model.safetensors")
    _, torch = there_and_back(source, tmp_path)
    assert_same_bits(tensors(torch), tensors(source))


def test_converted_parameters_load_into_the_model(released, tmp_path):
    to_orbax(released / "base", tmp_path / "orbax", report=quiet)
    config = TTSConfig.from_hf(read_config(tmp_path / "orbax"))
    params = flatten_params(load_params(tmp_path / "orbax", abstract(TTSModel, config)[1]))
    source = load_file(released / "base" / "model.safetensors")

    head = config.talker.transformer.head_dim
    group = config.talker.transformer.heads // config.talker.transformer.kv_heads
    qkv = params["talker/transformer/layers/2/attention/qkv/kernel"]
    torch = "talker.model.layers.2.self_attn."
    # Query head `group + 1` is the second one of key/value head 1.
    rows = source[torch + "q_proj.weight"][(group + 1) * head : (group + 2) * head]
    np.testing.assert_array_equal(qkv[1, 1], rows)
    np.testing.assert_array_equal(qkv[1, -2], source[torch + "k_proj.weight"][head : 2 * head])
    np.testing.assert_array_equal(qkv[1, -1], source[torch + "v_proj.weight"][head : 2 * head])
    np.testing.assert_array_equal(
        params["code_predictor/heads"][7], source["talker.code_predictor.lm_head.7.weight"]
    )
    np.testing.assert_array_equal(
        params["speaker_encoder/output/kernel"],
        source["speaker_encoder.fc.weight"].transpose(2, 1, 0),
    )
