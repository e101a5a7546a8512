"""Small 25 Hz checkpoints: golden talkers with one codebook in the released layout.

None was published, so the golden 12 Hz checkpoints lend talker, texts and speaker encoder; the code
predictor goes, and a 25 Hz tokenizer takes the place of the 12 Hz one.
"""

import json
import shutil

import numpy as np

from tests.support import tiny_onnx
from tests.support.helpers import GOLDEN

# Of the stand-in for CAM++.
MATRIX = np.random.default_rng(0).standard_normal((80, 20)).astype(np.float32)


def small_config():
    """`config.json` of a tokenizer that compiles fast: the golden one with less of everything."""
    config = json.loads((GOLDEN / "ckpt" / "tokenizer_25hz" / "config.json").read_text())
    config["encoder_config"] |= {"n_layer": 2, "audio_vq_layers": 1}
    dit = {"num_hidden_layers": 2, "look_ahead_layers": [1], "look_backward_layers": [0]}
    config["decoder_config"]["dit_config"] |= dit
    config["decoder_config"]["bigvgan_config"] |= {
        "upsample_initial_channel": 8,
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3, 5]],
        "upsample_rates": [5],
        "upsample_kernel_sizes": [11],
    }
    return config | {"decode_upsample_rate": 10}


def shrink_tokenizer(folder):
    """Put the tokenizer of `small_config`, random weights, into a converted checkpoint."""
    # The official script shares this module, and where it runs there is no JAX.
    from qtts_jax.configs.tokenizer_25hz import Tokenizer25HzConfig
    from qtts_jax.functional import initialize
    from qtts_jax.io.checkpoint import save_params
    from qtts_jax.models.tokenizer_25hz import Tokenizer25Hz

    config = small_config()
    (folder / "config.json").write_text(json.dumps(config))
    sizes = Tokenizer25HzConfig.from_hf(config)
    save_params(folder, initialize(Tokenizer25Hz, sizes, seed=0))


def write_released(kind, folder, detweights, overrides=()):
    """Write checkpoint `kind` ("base", "custom_voice", "voice_design") to the new `folder`.

    Args:
        overrides: (field, value) pairs of the talker's configuration.
    """
    shutil.copytree(GOLDEN / "ckpt" / kind, folder, copy_function=shutil.copyfile)
    shutil.rmtree(folder / "speech_tokenizer")
    shutil.copytree(
        GOLDEN / "ckpt" / "tokenizer_25hz",
        folder / "speech_tokenizer",
        copy_function=shutil.copyfile,
    )
    config = json.loads((folder / "config.json").read_text())
    config["tokenizer_type"] = "qwen3_tts_tokenizer_25hz"
    talker = config["talker_config"]
    del talker["code_predictor_config"]
    talker |= {"num_code_groups": 1, **dict(overrides)}
    (folder / "config.json").write_text(json.dumps(config))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tensors"] = {
        name: shape
        for name, shape in manifest["tensors"].items()
        if not name.startswith("talker.code_predictor.")
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    detweights.materialize(folder)
    (folder / "speech_tokenizer" / "campplus.onnx").write_bytes(tiny_onnx.stand_in(MATRIX))
