"""A one-codebook talker that the official class saved: its code predictor is stored and unused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from convert.to_orbax import to_orbax
from convert.to_torch import to_torch
from convert.unused import unused_tensors
from qtts_jax.errors import CheckpointError
from qtts_jax.io.checkpoint import stored_params
from tests.support.checkpoint_25hz import write_released
from tests.support.helpers import GOLDEN

PREDICTOR = "talker.code_predictor."
# A layer of the official predictor: [out, in] of width 64, 4 heads of 16, 2 of them shared.
LAYER = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "self_attn.q_norm": (16,),
    "self_attn.k_norm": (16,),
    "mlp.gate_proj": (104, 64),
    "mlp.up_proj": (104, 64),
    "mlp.down_proj": (64, 104),
    "input_layernorm": (64,),
    "post_attention_layernorm": (64,),
}


def names_and_shapes(talker_width, books):
    """What `save_pretrained` stores for the golden predictor with `num_code_groups` books."""
    shapes = {
        f"{PREDICTOR}model.layers.{i}.{name}.weight": shape
        for i in range(2)
        for name, shape in LAYER.items()
    }
    shapes[PREDICTOR + "model.norm.weight"] = (64,)
    if talker_width != 64:
        shapes[PREDICTOR + "small_to_mtp_projection.weight"] = (64, talker_width)
        shapes[PREDICTOR + "small_to_mtp_projection.bias"] = (64,)
    for q in range(books - 1):
        shapes[f"{PREDICTOR}model.codec_embedding.{q}.weight"] = (64, talker_width)
        shapes[f"{PREDICTOR}lm_head.{q}.weight"] = (64, 64)
    return shapes


def quiet(message):
    pass


@pytest.fixture(params=[("custom_voice", 1), ("base", 3)], ids=["one book", "three books"])
def saved(request, tmp_path, detweights):
    """A folder as the official class writes it, and the unused tensors in it."""
    kind, books = request.param
    folder = tmp_path / "source"
    write_released(kind, folder, detweights)
    config = json.loads((folder / "config.json").read_text())
    whole = json.loads((GOLDEN / "ckpt" / kind / "config.json").read_text())["talker_config"]
    predictor = whole["code_predictor_config"] | {"num_code_groups": books}
    config["talker_config"]["code_predictor_config"] = predictor
    (folder / "config.json").write_text(json.dumps(config))
    shapes = names_and_shapes(whole["hidden_size"], books)
    store(folder, {name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    return folder, shapes


def store(folder, more):
    weights = folder / "model.safetensors"
    save_file(load_file(weights) | more, weights)


def test_exactly_the_described_predictor_is_known_as_unused(saved):
    folder, shapes = saved
    config = json.loads((folder / "config.json").read_text())
    assert unused_tensors(config) == shapes
    config["talker_config"].pop("code_predictor_config")
    assert unused_tensors(config) == {}
    many = json.loads((GOLDEN / "ckpt" / "base" / "config.json").read_text())
    assert unused_tensors(many) == {}


def test_unused_tensors_are_left_behind_in_both_directions(saved, tmp_path):
    folder, _ = saved
    to_orbax(folder, tmp_path / "orbax", report=quiet)
    assert not any("predictor" in name for name in stored_params(tmp_path / "orbax"))
    to_torch(tmp_path / "orbax", tmp_path / "torch", report=quiet)
    back = load_file(tmp_path / "torch" / "model.safetensors")
    assert not any(name.startswith(PREDICTOR) for name in back)
    for name, array in load_file(folder / "model.safetensors").items():
        if not name.startswith(PREDICTOR):
            np.testing.assert_array_equal(back[name], array, err_msg=name)
    to_orbax(tmp_path / "torch", tmp_path / "again", report=quiet)


def test_any_other_name_or_shape_is_a_fault(saved, tmp_path):
    folder, _ = saved
    norm, extra = PREDICTOR + "model.norm.weight", PREDICTOR + "model.layers.2.extra.weight"
    store(folder, {norm: np.ones(63, np.float32), extra: np.ones(3, np.float32)})
    with pytest.raises(CheckpointError) as raised:
        to_orbax(folder, tmp_path / "orbax", report=quiet)
    assert f"1 keys have no place in the model: {extra}" in str(raised.value)
    assert f"{norm} [63] (expected [64])" in str(raised.value)
    assert not (tmp_path / "orbax").exists()
