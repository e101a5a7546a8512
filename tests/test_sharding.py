"""Parameters split over a mesh: specs from the logical axes, and the same codes."""

import subprocess
import sys

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
from qtts_jax.sharding import RULES, make_mesh, shardings
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
    whole = sum(
        x.size
        for s, x in zip(jax.tree.leaves(split), jax.tree.leaves(tree), strict=True)
        if "model" not in s.spec
    )
    assert whole < 0.02 * sum(x.size for x in jax.tree.leaves(tree))
    assert set(RULES.values()) == {"model"}


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
