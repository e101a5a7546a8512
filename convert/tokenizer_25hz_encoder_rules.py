"""Table of the encoder of the 25 Hz tokenizer."""

from convert.computed import Computed, sinusoids
from convert.layer_rules import conv, linear, norm, transposed_conv
from convert.rules import Rule
from qtts_jax.configs.tokenizer_25hz import Encoder25HzConfig


def encoder_rules(config: Encoder25HzConfig) -> list[Rule | Computed]:
    """Rules for `encoder/`; the table of positions is computed."""
    torch, ours = "encoder.tokenizer.", "encoder/"
    rules = [
        *conv(torch + "conv1", ours + "conv1"),
        *conv(torch + "conv2", ours + "conv2"),
        *_block_rules(torch + "blocks.{i}.", ours + "layers/{i}/"),
        *conv(torch + "audio_vq_downsample", ours + "downsample"),
        *transposed_conv(torch + "audio_vq_upsample", ours + "upsample"),
        *linear(torch + "project_after_vq_pe", ours + "positioned"),
        *norm(torch + "ln_post", ours + "norm"),
        *linear(torch + "proj", ours + "output"),
        Rule(torch + "audio_bos_eos_token.weight", ours + "ends"),
    ]
    codebook, target = torch + "audio_quantizer.rvqs.0.", ours + "quantizer/"
    rules += [
        Rule(codebook + "inited", target + "initialized", "one -> 1 one"),
        Rule(codebook + "cluster_size", target + "usage", "V -> 1 V"),
        Rule(codebook + "embed", target + "codebook", "V d -> 1 V d"),
        Rule(codebook + "embed_avg", target + "embed_sum", "V d -> 1 V d"),
        *linear(codebook + "layers.0.project_in", target + "input_projection"),
        *linear(codebook + "layers.0.project_out", target + "output_projection"),
    ]
    positions = sinusoids(torch + "positional_embedding", config.max_positions, config.width)
    return [*rules, positions]


def _block_rules(torch: str, ours: str) -> list[Rule]:
    """One `WhisperBlock`."""
    attention, heads = ours + "attention/", "H h D -> (H h) D"
    return [
        *norm(torch + "attn_ln", ours + "attention_norm"),
        Rule(torch + "attn.query.weight", attention + "qkv/kernel[0]", heads),
        Rule(torch + "attn.key.weight", attention + "qkv/kernel[1]", heads),
        Rule(torch + "attn.value.weight", attention + "qkv/kernel[2]", heads),
        Rule(torch + "attn.query.bias", attention + "q_bias", "H h -> (H h)"),
        Rule(torch + "attn.value.bias", attention + "v_bias", "H h -> (H h)"),
        Rule(torch + "attn.out.weight", attention + "out/kernel", "D H h -> D (H h)"),
        Rule(torch + "attn.out.bias", attention + "out/bias"),
        *norm(torch + "mlp_ln", ours + "ffn_norm"),
        *linear(torch + "mlp.0", ours + "up"),
        *linear(torch + "mlp.2", ours + "down"),
    ]
