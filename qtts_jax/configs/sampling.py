"""Sampling settings of a request (no arrays, so the command line can read them at once)."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from qtts_jax.errors import RequestError

_WORDS: dict[type, str] = {bool: "True or False", int: "a whole number", float: "a finite number"}


@dataclass(frozen=True)
class SamplingParams:
    """Settings of one request, named as in the official package.

    The `subtalker_` fields govern the code predictor. `max_new_tokens` counts codebook-0 tokens
    as the official package does: without an end of speech it gives max_new_tokens - 1 frames.
    `top_k` 0 and `top_p` 1.0 switch the filters off, `top_p` 0 leaves the best token. A head that
    does not sample reads no temperature. `draft_window` is how many positions one pass of the code
    predictor verifies (`generation/speculative_codes.py`): 1 is the plain loop, and every value
    gives the same codes, but for ties within rounding. The defaults are the official code's own; a
    checkpoint's `generation_config.json` overrides them.
    """

    do_sample: bool = True
    top_k: int = 50
    top_p: float = 1.0
    temperature: float = 0.9
    repetition_penalty: float = 1.05
    subtalker_dosample: bool = True
    subtalker_top_k: int = 50
    subtalker_top_p: float = 1.0
    subtalker_temperature: float = 0.9
    max_new_tokens: int = 2048
    draft_window: int = 1

    def __post_init__(self) -> None:
        def check(name: str, good: bool, rule: str) -> None:
            if not good:
                raise RequestError(f"{name} must be {rule}, not {getattr(self, name)!r}.")

        for prefix, sample in (("", "do_sample"), ("subtalker_", "subtalker_dosample")):
            name = f"{prefix}temperature"
            good = not getattr(self, sample) or 0 < getattr(self, name) < math.inf
            check(name, good, f"above 0 (for greedy decoding use {sample}=False)")
            name = f"{prefix}top_p"
            check(name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
            name = f"{prefix}top_k"
            check(name, getattr(self, name) >= 0, "0 (off) or more")
        check("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0 (1 is off)")
        check("max_new_tokens", self.max_new_tokens >= 2, "at least 2")
        check("draft_window", self.draft_window >= 1, "1 (no drafts) or more")

    def merge(self, overrides: Mapping[str, Any]) -> SamplingParams:
        """These settings with every override that is not None.

        Raises:
            RequestError: an override has an unknown name or an impossible value.
        """
        kinds: dict[str, type] = {f.name: type(f.default) for f in fields(self)}
        given = {k: v for k, v in overrides.items() if v is not None}
        unknown = sorted(set(given) - set(kinds))
        if unknown:
            raise RequestError(
                f"unknown sampling argument {', '.join(map(repr, unknown))}; known are: "
                f"{', '.join(kinds)}."
            )
        for name, value in given.items():
            kind = kinds[name]
            ok = isinstance(value, bool | np.bool_) if kind is bool else _is_finite(value)
            if not ok or (kind is int and value != int(value)):
                raise RequestError(f"{name} must be {_WORDS[kind]}, not {value!r}.")
            given[name] = kind(value)
        return replace(self, **given)


def _is_finite(value: Any) -> bool:
    """Whether this is a number that a float can hold; NaN and booleans are none."""
    number = isinstance(value, int | float | np.integer | np.floating)
    return number and not isinstance(value, bool) and bool(abs(value) <= sys.float_info.max)
