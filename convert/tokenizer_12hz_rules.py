"""Table of the 12 Hz tokenizer.

The torch modules are anonymous lists; the numbers below are places in `MimiEncoder.layers` and in
`Qwen3TTSTokenizerV2Decoder.decoder`, where activations without parameters count too.
"""

from convert.layer_rules import conv, linear, norm, pointwise_conv, snake, transposed_conv
from convert.rules import Rule
from convert.transformer_rules import transformer_rules
from qtts_jax.configs.tokenizer_12hz import (
    Decoder12HzConfig,
    Encoder12HzConfig,
    Tokenizer12HzConfig,
)
from qtts_jax.modules.upsample_stage import DILATIONS


def tokenizer_12hz_rules(config: Tokenizer12HzConfig) -> list[Rule]:
    """Rules for `Tokenizer12Hz(config)`."""
    return encoder_rules(config.encoder) + decoder_rules(config.decoder)


def encoder_rules(config: Encoder12HzConfig) -> list[Rule]:
    """Rules for `encoder/`: input convolution, then per stage its residual units, ELU, convolution;
    then ELU, output convolution. A unit is ELU, convolution, ELU, convolution."""
    torch, ours = "encoder.encoder.layers.", "encoder/seanet/"
    units = config.residual_layers
    per_stage = units + 2
    rules = [*conv(f"{torch}0.conv", f"{ours}input_conv")]
    for unit in range(units):
        source = f"{torch}{{{per_stage}i+{unit + 1}}}.block"
        target = f"{ours}stages/{{i}}/residuals/{unit}"
        rules += conv(f"{source}.1.conv", f"{target}/conv1")
        rules += conv(f"{source}.3.conv", f"{target}/conv2")
    rules += conv(f"{torch}{{{per_stage}i+{per_stage}}}.conv", f"{ours}stages/{{i}}/downsample")
    rules += conv(f"{torch}{per_stage * len(config.ratios) + 2}.conv", f"{ours}output_conv")
    rules += transformer_rules(
        "encoder.encoder_transformer", "encoder/transformer", config.transformer
    )
    rules += conv("encoder.downsample.conv", "encoder/downsample")
    for name in ("semantic", "acoustic"):
        source = f"encoder.quantizer.{name}_residual_vector_quantizer"
        target = f"encoder/quantizer/{name}"
        codebook = source + ".layers.{q}.codebook."
        rules += [
            *pointwise_conv(f"{source}.input_proj", f"{target}/input_projection"),
            *pointwise_conv(f"{source}.output_proj", f"{target}/output_projection"),
            Rule(codebook + "embed_sum", target + "/embed_sum[{q}]"),
            Rule(codebook + "cluster_usage", target + "/usage[{q}]"),
            Rule(codebook + "initialized", target + "/initialized[{q}]"),
        ]
    return rules


def decoder_rules(config: Decoder12HzConfig) -> list[Rule]:
    """Rules for `decoder/`: in the torch list `decoder`, input convolution, stages, activation and
    output convolution; in a stage, activation, transposed convolution and residual units."""
    rules = []
    for torch, name in (("rvq_first", "semantic"), ("rvq_rest", "acoustic")):
        source, target = f"decoder.quantizer.{torch}", f"decoder/quantizer/{name}"
        codebook = source + ".vq.layers.{q}._codebook."
        rules += [
            *pointwise_conv(f"{source}.input_proj", f"{target}/input_projection"),
            *pointwise_conv(f"{source}.output_proj", f"{target}/output_projection"),
            Rule(codebook + "embedding_sum", target + "/embed_sum[{q}]"),
            Rule(codebook + "cluster_usage", target + "/usage[{q}]"),
        ]
    rules += conv("decoder.pre_conv.conv", "decoder/pre_conv")
    rules += linear("decoder.pre_transformer.input_proj", "decoder/input_projection")
    rules += transformer_rules("decoder.pre_transformer", "decoder/transformer", config.transformer)
    rules += linear("decoder.pre_transformer.output_proj", "decoder/output_projection")

    torch, ours = "decoder.upsample.{i}.", "decoder/upsample/{i}/"
    rules += transposed_conv(torch + "0.conv", ours + "transposed")
    rules += conv(torch + "1.dwconv.conv", ours + "convnext/depthwise")
    rules += norm(torch + "1.norm", ours + "convnext/norm")
    rules += linear(torch + "1.pwconv1", ours + "convnext/up")
    rules += linear(torch + "1.pwconv2", ours + "convnext/down")
    rules += [Rule(torch + "1.gamma", ours + "convnext/scale")]

    stages = len(config.upsample_rates)
    rules += conv("decoder.decoder.0.conv", "decoder/input_conv")
    torch, ours = "decoder.decoder.{i+1}.block.", "decoder/stages/{i}/"
    rules += snake(torch + "0", ours + "activation")
    rules += transposed_conv(torch + "1.conv", ours + "transposed")
    for unit in range(len(DILATIONS)):
        source, target = f"{torch}{unit + 2}.", f"{ours}residuals/{unit}/"
        for part in (1, 2):
            rules += snake(f"{source}act{part}", f"{target}activation{part}")
            rules += conv(f"{source}conv{part}.conv", f"{target}conv{part}")
    rules += snake(f"decoder.decoder.{stages + 1}", "decoder/output_activation")
    rules += conv(f"decoder.decoder.{stages + 2}.conv", "decoder/output_conv")
    return rules
