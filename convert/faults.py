"""All faults of one conversion, gathered and reported in a single error."""

from qtts_jax.errors import CheckpointError

SHOWN_PER_KIND = 20


class Faults:
    """Collects named faults by kind, and raises them together."""

    def __init__(self) -> None:
        self._items: dict[str, list[str]] = {}

    def add(self, kind: str, item: str) -> None:
        """Note one fault; `kind` completes the sentence "N ..." in the message."""
        self._items.setdefault(kind, []).append(item)

    def raise_any(self, what: str) -> None:
        """Raise one `CheckpointError` that names `what` and every fault, if there is any."""
        if not self._items:
            return
        lists = []
        for kind, items in self._items.items():
            rest = len(items) - SHOWN_PER_KIND
            more = f", and {rest} more" if rest > 0 else ""
            lists.append(f"{len(items)} {kind}: {', '.join(items[:SHOWN_PER_KIND])}{more}")
        raise CheckpointError(f"{what} cannot be converted: {'; '.join(lists)}.")
