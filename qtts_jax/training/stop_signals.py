"""SIGTERM and Ctrl-C as a request to save a checkpoint and stop."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """A context in which the first SIGINT or SIGTERM is only noted, and a second one acts as usual.

    Schedulers and preemptible machines send SIGTERM some seconds before they end a process. The
    handlers that were there before return with the first signal and at the end of the context.
    Python runs handlers between its own instructions only, so a signal that comes while a program
    compiles is noted after it. Outside the main thread, where Python allows no handlers, the
    context does nothing.

    Attributes:
        received: the name of the signal; None before one came.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # None is a handler that was not set from Python and cannot be set again.
                if signal.getsignal(number) is not None:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()
        # Not print: the handler may run in the middle of another write to the same stream.
        text = f"\n{self.received}: saving a checkpoint; a second signal ends at once\n"
        os.write(2, text.encode())

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
