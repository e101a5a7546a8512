"""The rule engine: one table describes a conversion, and both directions are read from it.

A `Rule` names a torch tensor and the place of its elements in a parameter tree of this package:

    Rule("model.layers.{i}.self_attn.q_proj.weight",
         "talker/layers/{i}/attention/qkv/kernel[:, :-2]", "K G h D -> (K G h) D")

reads: for every layer `i`, the rows `[:, :-2]` of our `kernel`, with axes K G h D, are the torch
tensor with the axes (K G h) and D.

* `{i}` is a number; `{3i+1}` on the torch side is three times that number plus one.
* Square brackets select a block of the target. A variable that stands only in the brackets runs
  over the whole axis (`heads[{q}]` stacks one torch tensor per `q`).
* The layout tells how the block's axes become the torch axes: a permutation, merged axes in
  parentheses, and `1` for an axis of size one. An empty layout means the same axes.

`plan` needs only the shapes of the target tree, so the same list of `Part`s serves torch -> Orbax,
Orbax -> torch, the dry run and the checks, and no tensor has to be read to make it.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from convert.faults import Faults

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """Where the elements of the torch tensors named by `source` live in the parameter tree."""

    source: str
    target: str
    layout: str = ""


@dataclass(frozen=True)
class Part:
    """One torch tensor and the block of one parameter that holds its elements."""

    source: str
    shape: Shape
    target: str
    block: str
    box: tuple[slice, ...]
    axes: tuple[int, ...]

    def view(self, target: np.ndarray) -> np.ndarray:
        """A view of `target` whose C order is the element order of the torch tensor."""
        return target[self.box].transpose(self.axes)

    def describe(self) -> str:
        """The target and its block, such as `code_predictor/heads[3]`, for messages."""
        return f"{self.target}[{self.block}]" if self.block else self.target


def plan(rules: Iterable[Rule], targets: Mapping[str, Shape], faults: Faults) -> list[Part]:
    """Apply `rules` to the parameters `targets` (slash-joined path -> shape).

    Parameters that no rule fills, or that two rules fill, go to `faults`.
    """
    compiled = [(rule, *_compile_target(rule.target)) for rule in rules]
    parts: list[Part] = []
    for name, shape in targets.items():
        filling: list[Part] = []
        for rule, pattern, brackets in compiled:
            if found := pattern.fullmatch(name):
                numbers = {key: int(value) for key, value in found.groupdict().items()}
                filling += _expand(rule, name, shape, brackets, numbers)
        _check_coverage(name, shape, filling, faults)
        parts += filling
    for source, count in _repeated(part.source for part in parts):
        faults.add("source keys are used more than once", f"{source} ({count} times)")
    return parts


def _compile_target(target: str) -> tuple[re.Pattern[str], list[str]]:
    path, _, inside = target.partition("[")
    pattern = re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(path))
    return re.compile(pattern), [item.strip() for item in inside.rstrip("]").split(",") if item]


def _expand(
    rule: Rule, name: str, shape: Shape, brackets: list[str], numbers: Mapping[str, int]
) -> list[Part]:
    """All parts that `rule` puts into the parameter `name`; none when the ranks do not fit."""
    if len(brackets) > len(shape):
        return []
    free = {
        item[1]: range(shape[axis])
        for axis, item in enumerate(brackets)
        if item.startswith("{") and item[1] not in numbers
    }
    parts = []
    for values in itertools.product(*free.values()):
        known = dict(numbers) | dict(zip(free, values, strict=True))
        box, dropped = [], []
        items = [_substitute(item, known) for item in brackets]
        for axis, size in enumerate(shape):
            item = items[axis] if axis < len(items) else ":"
            if ":" in item:
                ends = [int(end) if end.strip() else None for end in item.split(":")]
                start, stop, _ = slice(*ends).indices(size)
                box.append(slice(start, stop))
            else:
                box.append(slice(int(item), int(item) + 1))
                dropped.append(axis)
        kept = [axis for axis in range(len(shape)) if axis not in dropped]
        groups = _parse_layout(rule.layout, kept)
        if groups is None:
            return []
        lengths = [box[axis].stop - box[axis].start for axis in range(len(shape))]
        parts.append(
            Part(
                source=_substitute(rule.source, known),
                shape=tuple(math.prod(lengths[axis] for axis in group) for group in groups),
                target=name,
                block=", ".join(items),
                box=tuple(box),
                # Selected axes have length one, so they may lead without changing the order.
                axes=tuple(dropped) + tuple(itertools.chain(*groups)),
            )
        )
    return parts


def _substitute(text: str, numbers: Mapping[str, int]) -> str:
    def number(found: re.Match[str]) -> str:
        factor, name, offset = found.groups()
        return str(int(factor or 1) * numbers[name] + int(offset or 0))

    return re.sub(r"\{(\d*)(\w)([+-]\d+)?\}", number, text)


def _parse_layout(layout: str, axes: list[int]) -> list[tuple[int, ...]] | None:
    """The target axes merged into each torch axis; None when the rank is not the layout's."""
    if not layout:
        return [(axis,) for axis in axes]
    left, right = layout.split("->")
    names = left.split()
    if len(names) != len(axes):
        return None
    number = dict(zip(names, axes, strict=True))
    tokens = re.findall(r"\(([^)]*)\)|(\S+)", right)
    return [
        () if single == "1" else tuple(number[name] for name in (merged or single).split())
        for merged, single in tokens
    ]


def _check_coverage(name: str, shape: Shape, parts: list[Part], faults: Faults) -> None:
    for a, b in itertools.combinations(parts, 2):
        axes = zip(a.box, b.box, strict=True)
        if all(max(x.start, y.start) < min(x.stop, y.stop) for x, y in axes):
            faults.add("targets are filled twice", f"{a.describe()} by {a.source} and {b.source}")
    filled = sum(math.prod(part.shape) for part in parts)
    if filled < math.prod(shape):
        partly = f" (only {filled} of {math.prod(shape)} elements)" if parts else " (no rule)"
        faults.add("targets are not filled", name + partly)


def _repeated(names: Iterable[str]) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return [(name, count) for name, count in counts.items() if count > 1]
