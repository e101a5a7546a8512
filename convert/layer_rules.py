"""Rules of single layers, by which the tables of the models are put together."""

from convert.rules import Rule


def linear(source: str, target: str) -> list[Rule]:
    """`torch.nn.Linear` -> `Linear`; both are [out, in]."""
    return [Rule(f"{source}.weight", f"{target}/kernel"), Rule(f"{source}.bias", f"{target}/bias")]


def norm(source: str, target: str) -> list[Rule]:
    """RMSNorm or LayerNorm."""
    return [Rule(f"{source}.weight", f"{target}/scale"), Rule(f"{source}.bias", f"{target}/bias")]


def conv(source: str, target: str) -> list[Rule]:
    """`torch.nn.Conv1d` [out, in / groups, k] -> `Conv` [k, in / groups, out]."""
    return [
        Rule(f"{source}.weight", f"{target}/kernel", "k in out -> out in k"),
        Rule(f"{source}.bias", f"{target}/bias"),
    ]


def transposed_conv(source: str, target: str) -> list[Rule]:
    """`torch.nn.ConvTranspose1d` [in, out, k] -> `ConvTranspose` [k / stride, in, stride, out]."""
    return [
        Rule(f"{source}.weight", f"{target}/kernel", "j in p out -> in out (j p)"),
        Rule(f"{source}.bias", f"{target}/bias"),
    ]


def pointwise_conv(source: str, target: str) -> list[Rule]:
    """`torch.nn.Conv1d` of kernel size 1 -> `Linear` [out, in]."""
    return [
        Rule(f"{source}.weight", f"{target}/kernel", "out in -> out in 1"),
        Rule(f"{source}.bias", f"{target}/bias"),
    ]


def snake(source: str, target: str) -> list[Rule]:
    """SnakeBeta."""
    return [Rule(f"{source}.{name}", f"{target}/{name}") for name in ("alpha", "beta")]
