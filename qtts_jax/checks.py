"""Checks of single values that arguments, configurations and files share."""

import operator
from typing import Any


def is_whole_number(value: Any, minimum: int | None = None, maximum: int | None = None) -> bool:
    """Whether this is an integer in a range; booleans are none, NumPy's integers are.

    Args:
        value: anything.
        minimum, maximum: bounds, themselves included; None for no bound.
    """
    try:
        number = operator.index(value)
    except TypeError:
        return False
    if isinstance(value, bool) or getattr(value, "shape", ()) != ():
        return False
    return (minimum is None or number >= minimum) and (maximum is None or number <= maximum)
