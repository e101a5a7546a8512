"""Library of the ablations: floating-point operations of a traced function.

Products and convolutions only, two operations for each multiplication and addition, as is usual.
The loops of a program are multiplied out, so that a training step with its gradients is counted as
it is, for every variation alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

from experiments import command


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """Operations of `function(*args)`; the arguments may be `jax.ShapeDtypeStruct`."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: core.Jaxpr) -> float:
    return sum(map(_count_equation, jaxpr.eqns))


def _count_equation(eqn: Any) -> float:
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        inner = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
        return 2.0 * inner * eqn.outvars[0].aval.size
    if name == "conv_general_dilated":
        kernel, numbers = eqn.invars[1].aval, params["dimension_numbers"]
        inner = kernel.size / kernel.shape[numbers.rhs_spec[0]]
        # The zeros between the samples of a transposed convolution cost nothing.
        return 2.0 * inner * eqn.outvars[0].aval.size / math.prod(params["lhs_dilation"])
    inside = list(map(_count, _programs(params)))
    if name == "cond":
        return max(inside)
    if name == "scan":
        return params["length"] * sum(inside)
    return sum(inside)


def _programs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The programs among the parameters of an equation."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


if __name__ == "__main__":
    raise SystemExit(command.exit_status_of_library(__file__, "experiments.run"))
