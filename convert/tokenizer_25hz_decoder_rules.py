"""Table of the decoder of the 25 Hz tokenizer."""

from convert.computed import Computed, rotary_frequencies
from convert.layer_rules import conv, linear
from convert.rules import Rule
from convert.speaker_encoder_rules import LAYERS
from qtts_jax.configs.tokenizer_25hz_decoder import Decoder25HzConfig


def decoder_rules(config: Decoder25HzConfig) -> list[Rule | Computed]:
    """Rules for `decoder/`: flow matching, then the vocoder."""
    dit = config.dit
    angles = rotary_frequencies("decoder.dit.rotary_embed.inv_freq", dit.head_dim, dit.rope_theta)
    return [angles, *flow_rules(), *vocoder_rules(config)]


def flow_rules() -> list[Rule]:
    """Rules for `decoder/flow/`.

    Heads are stored as first and second members of the rotated pairs; see `DiTLayer`. The sections
    of the time modulation keep their order: (shift, scale, gate) twice in a layer, and (scale,
    shift) at the output.
    """
    torch, ours = "decoder.dit.", "decoder/flow/"
    rules = [Rule(f"{torch}text_embed.codec_embed.weight", f"{ours}code_embedding/table")]
    rules += linear(f"{torch}input_embed.proj", f"{ours}input")
    for source, target in LAYERS.items():
        rules += conv(
            f"{torch}input_embed.spk_encoder.{source}", f"{ours}reference_encoder/{target}"
        )
    ours += "dit/"
    rules += linear(f"{torch}time_embed.time_mlp.0", f"{ours}time_up")
    rules += linear(f"{torch}time_embed.time_mlp.2", f"{ours}time_down")
    rules += linear(f"{torch}proj_out", f"{ours}output")
    for source, target in (
        ("transformer_blocks.{i}.attn_norm.linear", "modulation/{}[{{i}}]"),
        ("norm_out.linear", "output_modulation/{}"),
    ):
        rules += [
            Rule(f"{torch}{source}.weight", ours + target.format("kernel"), "p o i -> (p o) i"),
            Rule(f"{torch}{source}.bias", ours + target.format("bias"), "p o -> (p o)"),
        ]
    torch, ours = f"{torch}transformer_blocks.{{i}}.", f"{ours}layers/{{i}}/"
    for place, name in enumerate("qkv"):
        source, target = f"{torch}attn.to_{name}", f"{ours}qkv"
        rules += [
            Rule(f"{source}.weight", f"{target}/kernel[{place}]", "H p r D -> (H r p) D"),
            Rule(f"{source}.bias", f"{target}/bias[{place}]", "H p r -> (H r p)"),
        ]
    rules += [
        Rule(f"{torch}attn.to_out.0.weight", f"{ours}out/kernel", "D H p r -> D (H r p)"),
        Rule(f"{torch}attn.to_out.0.bias", f"{ours}out/bias"),
    ]
    return rules + linear(f"{torch}ff.ff.0", f"{ours}up") + linear(f"{torch}ff.ff.3", f"{ours}down")


def vocoder_rules(config: Decoder25HzConfig) -> list[Rule]:
    """Rules for `decoder/vocoder/`; the parallel blocks of all stages are one torch list."""
    torch, ours = "decoder.bigvgan.", "decoder/vocoder/"
    rules = conv(f"{torch}conv_pre", f"{ours}input_conv")
    rules += snake(f"{torch}activation_post.act", f"{ours}output_activation/", 0)
    rules += conv(f"{torch}conv_post", f"{ours}output_conv")
    rules += [
        Rule(
            f"{torch}ups.{{i}}.0.weight",
            f"{ours}stages/{{i}}/upsample/kernel",
            "k in out -> in out k",
        ),
        Rule(f"{torch}ups.{{i}}.0.bias", f"{ours}stages/{{i}}/upsample/bias"),
    ]
    blocks = len(config.vocoder.kernel_sizes)
    for block in range(blocks):
        source, target = f"{torch}resblocks.{{{blocks}i+{block}}}.", f"{ours}stages/{{i}}/"
        rules += conv(f"{source}pre_conv", f"{target}pre_conv/{block}")
        for name in ("convs1", "convs2"):
            rules += conv(f"{source}{name}.{{j}}", f"{target}{name}/{{j}}/{block}")
        rules += snake(f"{source}pre_act.act", f"{target}pre_activation/", block)
        rules += snake(f"{source}activations.{{j}}.act", f"{target}activations/{{j}}/", block)
    return rules


def snake(source: str, target: str, place: int) -> list[Rule]:
    """SnakeBeta -> one of the signals of `AliasFreeSnake`."""
    return [Rule(f"{source}.{name}", f"{target}{name}[{place}]") for name in ("alpha", "beta")]
