"""Table of the speaker encoder of Base checkpoints."""

from convert.layer_rules import conv
from convert.rules import Rule

# Path of a layer in the torch module -> in `SpeakerEncoder`; all layers are convolutions.
LAYERS = {
    "blocks.{i}.conv": "blocks/{i}/conv",
    "blocks.{i}.tdnn1.conv": "blocks/{i}/tdnn1/conv",
    "blocks.{i}.res2net_block.blocks.{j}.conv": "blocks/{i}/res2net/blocks/{j}/conv",
    "blocks.{i}.tdnn2.conv": "blocks/{i}/tdnn2/conv",
    "blocks.{i}.se_block.conv1": "blocks/{i}/se/conv1",
    "blocks.{i}.se_block.conv2": "blocks/{i}/se/conv2",
    "mfa.conv": "mfa/conv",
    "asp.tdnn.conv": "pooling/tdnn/conv",
    "asp.conv": "pooling/conv",
    "fc": "output",
}


def speaker_encoder_rules() -> list[Rule]:
    """Rules for `SpeakerEncoder` at `speaker_encoder/`."""
    return [
        rule
        for torch, ours in LAYERS.items()
        for rule in conv(f"speaker_encoder.{torch}", f"speaker_encoder/{ours}")
    ]
