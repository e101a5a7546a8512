"""Parameters split over a mesh: specs from the logical axes, and the same codes."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from qtts_jax.configs.presets import PRESETS, tiny_tokenizer_25hz, tts_12hz
from qtts_jax.configs.tokenizer_12hz import Tokenizer12HzConfig
from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
from qtts_jax.errors import ConfigError
from qtts_jax.functional import abstract, logical_axes
from qtts_jax.models.tokenizer_12hz import Tokenizer12Hz
from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz
from qtts_jax.models.tts_model import TTSModel
from qtts_jax.sharding import check_mesh, make_mesh, parse_mesh, shardings
from qtts_jax.tts.mesh_report import whole_attention
from tests.support.helpers import virtual_devices

TWO_DEVICES = """
import sys
import numpy as np
from qtts_jax import QwenTTS
from qtts_jax.sharding import make_mesh
tts = QwenTTS.from_pretrained(sys.argv[1], dtype="float32", mesh=make_mesh(1, 2))
kernel = tts.params["talker"]["transformer"]["layers"][0]["attention"]["qkv"]["kernel"]
assert len(kernel.sharding.device_set) == 2 and not kernel.is_fully_replicated
request = tts.prepare_custom_voice("Short one.", "ryan", "english", seed=1, max_new_tokens=6)
np.save(sys.argv[2], tts.synthesize([request])[0].codes)
"""


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_declares_an_axis_for_each_dimension(name):
    config = PRESETS[name]()
    if isinstance(config, Tokenizer25HzConfig):
        config = tiny_tokenizer_25hz(config)  # it takes long to lay out, and the axes are the same
    module = {Tokenizer12HzConfig: Tokenizer12Hz, Tokenizer25HzConfig: Tokenizer25Hz}.get(
        type(config), TTSModel
    )
    axes = jax.tree.leaves(logical_axes(module, config), is_leaf=lambda x: isinstance(x, tuple))
    shapes = jax.tree.leaves(abstract(module, config)[1])
    assert len(axes) == len(shapes)
    assert all(len(a) == x.ndim for a, x in zip(axes, shapes, strict=True))


def test_large_matrices_are_split_over_the_model_axis():
    config = tts_12hz("1b7", "base")
    mesh = AbstractMesh((1, 8), ("data", "model"))
    tree = abstract(TTSModel, config)[1]
    split = shardings(mesh, logical_axes(TTSModel, config), tree)
    layer = split["talker"]["transformer"]["layers"][0]
    assert layer["attention"]["qkv"]["kernel"].spec[0] == "model"
    assert layer["ffn"]["gate_up"]["kernel"].spec[1] == "model"
    assert tuple(layer["attention_norm"]["scale"].spec) == (None,)
    axes = jax.tree.leaves(logical_axes(TTSModel, config), is_leaf=lambda x: isinstance(x, tuple))
    leaves = zip(axes, jax.tree.leaves(split), jax.tree.leaves(tree), strict=True)
    whole = sum(x.size for a, s, x in leaves if "model" not in s.spec and "codec_vocab" not in a)
    assert whole < 0.02 * sum(x.size for x in jax.tree.leaves(tree))


def test_the_vocabulary_of_codes_is_whole_where_it_is_sampled():
    config = tts_12hz("1b7", "base")
    mesh = AbstractMesh((1, 8), ("data", "model"))
    split = shardings(mesh, logical_axes(TTSModel, config), abstract(TTSModel, config)[1])
    assert not any(split["talker"]["codec_head"]["kernel"].spec)
    assert not any(split["code_predictor"]["heads"].spec)
    assert split["talker"]["text_embedding"]["table"].spec[0] == "model"


@pytest.mark.parametrize("sizes", [(0, 1), (-1, 2), (2.0, 1), (True, 1)])
def test_a_mesh_axis_is_a_number_of_devices(sizes):
    with pytest.raises(ConfigError, match="whole number of devices"):
        make_mesh(*sizes)


@pytest.mark.parametrize("text", ["", "data", "data=x", "data=2,data=2", "rows=2", "data=-1"])
def test_a_mesh_is_described_by_axes_and_sizes(text):
    with pytest.raises(ConfigError, match=r"like 'data=2,model=2'"):
        parse_mesh(text)


def test_a_described_mesh_is_made():
    assert parse_mesh("data=1, model=1").shape == {"data": 1, "model": 1}


def test_a_mesh_without_an_axis_is_refused():
    with pytest.raises(ConfigError, match="none named model"):
        check_mesh(AbstractMesh((1,), ("data",)))
    with pytest.raises(ConfigError, match="mesh is a str"):
        check_mesh("data=2")


def test_a_mesh_has_devices_of_every_process():
    devices = [SimpleNamespace(process_index=i // 2) for i in range(4)]
    with pytest.raises(ConfigError, match="no device of process 1"):
        make_mesh(2, 1, devices)


def test_attention_that_stays_whole_is_reported_with_the_sizes_that_divide():
    talker = tts_12hz("1b7", "base").talker
    assert whole_attention(talker, AbstractMesh((1, 8), ("data", "model"))) is None
    sentence = whole_attention(talker, AbstractMesh((1, 16), ("data", "model")))
    assert "a model axis of 16 does not divide the 8 key/value heads of the talker" in sentence
    assert sentence.endswith("sizes that divide: 1, 2, 4, 8.")


def test_a_mesh_that_is_too_large_is_refused():
    with pytest.raises(ConfigError, match="there are"):
        make_mesh(1, 1024)


@pytest.mark.slow
def test_two_devices_give_the_codes_of_one(tts, converted, tmp_path):
    request = tts("custom_voice", exact_reference=False).prepare_custom_voice(
        "Short one.", "ryan", "english", seed=1, max_new_tokens=6
    )
    wanted = tts("custom_voice", exact_reference=False).synthesize([request])[0].codes
    arguments = [str(converted("custom_voice")), str(tmp_path / "codes.npy")]
    subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, *arguments], env=virtual_devices(2), check=True
    )
    np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), wanted)
