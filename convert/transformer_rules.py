"""Table of the one transformer stack that talker, code predictor and tokenizer share."""

from convert.layer_rules import norm
from convert.rules import Rule
from qtts_jax.configs.tts import TransformerConfig

_FFN = {
    "swiglu": [
        ("mlp.gate_proj.weight", "ffn/gate_up/kernel[0]"),
        ("mlp.up_proj.weight", "ffn/gate_up/kernel[1]"),
        ("mlp.down_proj.weight", "ffn/down/kernel"),
    ],
    "gelu": [
        ("mlp.fc1.weight", "ffn/up/kernel"),
        ("mlp.fc2.weight", "ffn/down/kernel"),
    ],
}


def transformer_rules(source: str, target: str, config: TransformerConfig) -> list[Rule]:
    """Rules from the torch stack at `source` to the `Transformer` at `target`.

    Rules for parameters that a variant lacks (norm biases, query norms, layer scales) match
    nothing there, so the table is the same for all.
    """
    torch, ours = source + ".layers.{i}.", target + "/layers/{i}/"
    qkv, heads = ours + "attention/qkv/kernel", "K G h D -> (K G h) D"
    return [
        Rule(torch + "self_attn.q_proj.weight", qkv + "[:, :-2]", heads),
        Rule(torch + "self_attn.k_proj.weight", qkv + "[:, -2:-1]", heads),
        Rule(torch + "self_attn.v_proj.weight", qkv + "[:, -1:]", heads),
        Rule(
            torch + "self_attn.o_proj.weight",
            ours + "attention/out/kernel",
            "D K G h -> D (K G h)",
        ),
        *norm(torch + "self_attn.q_norm", ours + "attention/q_norm"),
        *norm(torch + "self_attn.k_norm", ours + "attention/k_norm"),
        *norm(torch + "input_layernorm", ours + "attention_norm"),
        *norm(torch + "post_attention_layernorm", ours + "ffn_norm"),
        *norm(source + ".norm", target + "/norm"),
        Rule(torch + "self_attn_layer_scale.scale", ours + "attention_scale"),
        Rule(torch + "mlp_layer_scale.scale", ours + "ffn_scale"),
        *(Rule(torch + a, ours + b) for a, b in _FFN[config.ffn]),
    ]
