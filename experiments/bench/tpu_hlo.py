"""Library of `experiments.bench.tpu_compile`: FLOPs, collectives and cycles of compiled programs.

XLA's own `cost_analysis` counts the body of a loop once. Here every computation of the optimized
HLO is weighted by the trip counts of the loops around it, which are read off their conditions: a
scan's condition is `i < n` and nothing else. A loop that also checks whether all rows are done
(`loops.run_until_done`) counts once, so its figures are those of one frame.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from experiments import command

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
ITEM_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}


class Cost(NamedTuple):
    """Work of one device.

    Attributes:
        flops: two for each multiplication and addition of matrix products, convolutions and sums.
        cycles: the compiler's `estimated_cycles`, which leave out the time of collectives, of
            kernels written by hand, of sorts and of waiting for copies from HBM.
        scatter_turns: turns of loops into which XLA expanded a scatter, one row a turn.
        collectives: (kind, bytes of the result) -> number.
        kernels: bytes that a kernel written by hand says it moves -> number.
    """

    flops: float
    cycles: int
    scatter_turns: int
    collectives: dict[tuple[str, int], int]
    kernels: dict[int, int]


class Instruction(NamedTuple):
    """One line of HLO text: `name = shape opcode(operands), attributes`."""

    name: str
    shape: str
    opcode: str
    line: str


def program_cost(text: str) -> tuple[Cost, Cost]:
    """Cost of optimized HLO text: outside all loops, and inside of loops (weighted)."""
    computations = _computations(text)
    weights = _weights(computations)
    costs = []
    for inside in (False, True):
        flops, cycles, turns = 0.0, 0, 0
        collectives: Counter[tuple[str, int]] = Counter()
        kernels: Counter[int] = Counter()
        for (name, in_loop), times in weights.items():
            if in_loop != inside:
                continue
            instructions = computations[name]
            shapes = {i.name: i.shape for i in instructions}
            for i in instructions:
                flops += times * _flops(i, shapes)
                if guess := re.search(r'"estimated_cycles":"(\d+)"', i.line):
                    cycles += int(times * int(guess.group(1)))
                if i.opcode.removesuffix("-start") in COLLECTIVES:
                    collectives[_collective(i)] += int(times)
                if 'custom_call_target="tpu_custom_call"' in i.line:
                    moved = re.search(r'"bytes_accessed":"(\d+)"', i.line)
                    kernels[int(moved.group(1)) if moved else 0] += int(times)
                if i.opcode == "while" and "scatter" in i.line:
                    turns += int(times * _trips(computations, i))
        costs.append(Cost(flops, cycles, turns, dict(collectives), dict(kernels)))
    return costs[0], costs[1]


def _computations(text: str) -> dict[str, list[Instruction]]:
    """Instructions by computation; the entry computation is also found as "ENTRY"."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] | None = None
    for line in text.splitlines():
        if head := re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line):
            current = found[head.group(2)] = []
            if head.group(1):
                found["ENTRY"] = current
        elif line.startswith("}"):
            current = None
        elif current is not None and (
            parts := re.match(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\(", line)
        ):
            current.append(Instruction(*parts.groups(), line))
    return found


def _weights(computations: dict[str, list[Instruction]]) -> dict[tuple[str, bool], float]:
    """How often each computation runs a call, by (name, whether a loop is around it)."""
    weights: dict[tuple[str, bool], float] = defaultdict(float)

    def walk(name: str, times: float, in_loop: bool) -> None:
        weights[name, in_loop] += times
        for i in computations.get(name, ()):
            if i.opcode == "while":
                body = _attribute(i, "body")
                walk(body, times * _trips(computations, i), True)
            elif i.opcode in ("call", "conditional", "async-start", "fusion"):
                for callee in _callees(i):
                    walk(callee, times, in_loop)

    walk("ENTRY", 1, False)
    return {key: times for key, times in weights.items() if key[0] in computations}


def _callees(i: Instruction) -> Iterator[str]:
    yield from re.findall(r"(?:to_apply|calls|computation)=%?([\w.\-]+)", i.line)
    if branches := re.search(r"branch_computations=\{([^}]*)\}", i.line):
        yield from (name.strip().lstrip("%") for name in branches.group(1).split(","))


def _attribute(i: Instruction, name: str) -> str:
    found = re.search(rf"{name}=%?([\w.\-]+)", i.line)
    return found.group(1) if found else ""


def _trips(computations: dict[str, list[Instruction]], loop: Instruction) -> int:
    """Turns of a loop whose condition is `i < n`; 1 for any other."""
    condition = computations.get(_attribute(loop, "condition"), [])
    lines = [i.line for i in condition]
    root = next((line for line in lines if line.lstrip().startswith("ROOT")), "")
    bounds = [int(n) for x in lines for n in re.findall(r"= s32\[\]\S* constant\((\d+)\)", x)]
    return bounds[0] if " compare(" in root and "direction=LT" in root and len(bounds) == 1 else 1


def _arrays(shape: str) -> list[tuple[str, list[int]]]:
    """(type, dimensions) of each array of a printed shape."""
    return [
        (kind, [int(n) for n in sizes.split(",") if n])
        for kind, sizes in re.findall(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]", shape)
    ]


def _collective(i: Instruction) -> tuple[str, int]:
    """Kind of a collective and bytes of its result on one device."""
    kind = i.opcode.removesuffix("-start")
    size = sum(ITEM_BYTES.get(item, 4) * math.prod(n) for item, n in _arrays(i.shape))
    # The result of a start is a tuple of operand and result, but for an all-reduce.
    return kind, size if i.opcode == kind or kind == "all-reduce" else size // 2


def _flops(i: Instruction, shapes: dict[str, str]) -> float:
    """FLOPs of one instruction; `shapes` are those of its computation, by name."""
    if i.opcode not in ("convolution", "dot", "reduce"):
        return 0.0
    names = re.findall(r"%([\w.\-]+)", i.line.split(f" {i.opcode}(", 1)[1].split(")", 1)[0])
    operands = [_arrays(shapes.get(name, ""))[:1] for name in names]
    if not operands or not all(operands):
        return 0.0
    sizes = [operand[0][1] for operand in operands]
    out = math.prod(_arrays(i.shape)[0][1])
    if i.opcode == "reduce":
        return 2.0 * math.prod(sizes[0])
    if i.opcode == "dot":
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.line)
        summed = [sizes[0][int(n)] for n in found.group(1).split(",") if n] if found else []
        return 2.0 * out * math.prod(summed)
    return _convolution_flops(i, *sizes[:2])


def _convolution_flops(i: Instruction, lhs: list[int], kernel: list[int]) -> float:
    """FLOPs of a convolution without its padding, which XLA:TPU uses to express outer products."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.line)
    if not labels:
        return 0.0
    inputs, kernels, outputs = labels.groups()
    out = _arrays(i.shape)[0][1]
    window = dict(re.findall(r"(\w+)=(\S+)", _braces(i.line, "window")))
    pairs = 1
    for d in (label for label in outputs if label.isdigit()):
        at = int(d)
        stride, base, kernel_step = (
            int(window[name].split("x")[at]) if name in window else 1
            for name in ("stride", "lhs_dilate", "rhs_dilate")
        )
        low = int(window["pad"].split("x")[at].split("_")[0]) if "pad" in window else 0
        position = (
            stride * np.arange(out[outputs.index(d)])[:, None]
            + kernel_step * np.arange(kernel[kernels.index(d)])
            - low
        )
        inside = (position >= 0) & (position <= base * (lhs[inputs.index(d)] - 1))
        pairs *= int(np.sum(inside & (position % base == 0)))
    rest = out[outputs.index("b")] * out[outputs.index("f")] * kernel[kernels.index("i")]
    return 2.0 * rest * pairs


def _braces(line: str, name: str) -> str:
    found = re.search(rf"\b{name}=\{{([^}}]*)\}}", line)
    return found.group(1) if found else ""


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.bench.tpu_compile"))
