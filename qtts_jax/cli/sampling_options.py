"""The sampling options of the commands that speak, and the fault of a temperature of 0."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from qtts_jax.configs.sampling import SamplingParams
from qtts_jax.errors import RequestError

_HELP = {
    "top_k": "draw codebook 0 from the K most likely codes; 0 for all",
    "top_p": "then from the fewest codes of this total probability; 1 for all",
    "temperature": "divisor of the logits of codebook 0; lower is steadier, above 0",
    "repetition_penalty": "divisor of the logits of codes that were used before; 1 is off",
    "subtalker_top_k": "--top-k of the other codebooks (the code predictor)",
    "subtalker_top_p": "--top-p of the other codebooks",
    "subtalker_temperature": "--temperature of the other codebooks",
    "draft_window": "positions that one pass of the code predictor verifies; 1 for no drafts",
    "max_new_tokens": "most frames, plus one, before speech is cut",
}


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add `--greedy` and an option for every field of `SamplingParams` that is a number."""
    parser.add_argument(
        "--greedy", action="store_true", help="take the most likely code in all codebooks"
    )
    group = parser.add_argument_group(
        "sampling",
        "Defaults are those of the checkpoint's generation_config.json; where it has none, the\n"
        "numbers in parentheses.",
    )
    for field in fields(SamplingParams):
        if isinstance(field.default, bool):
            continue  # --greedy
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            metavar="N" if isinstance(field.default, int) else "X",
            help=f"{_HELP[field.name]} (default: {field.default})",
        )


def check_temperatures(
    given: Mapping[str, Any], defaults: SamplingParams, name: str, greedy: str
) -> None:
    """Refuse temperatures of 0 or less with the option for greedy decoding of the place.

    Args:
        given: sampling settings by field.
        defaults: of the checkpoint.
        name: a format of the option's name, of `field` and `option` (the field with hyphens).
        greedy: what to write for greedy decoding there.

    Raises:
        RequestError: a head that samples has a temperature that is not above 0.
    """
    for prefix, switch in (("", "do_sample"), ("subtalker_", "subtalker_dosample")):
        field = f"{prefix}temperature"
        value, sample = given.get(field), given.get(switch)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if not -math.inf < value <= 0:
            continue  # NaN and infinity are faults that `SamplingParams` names
        if getattr(defaults, switch) if sample is None else sample:
            shown = name.format(field=field, option=field.replace("_", "-"))
            raise RequestError(
                f"{shown} must be above 0, not {value}; for greedy decoding use {greedy}."
            )
