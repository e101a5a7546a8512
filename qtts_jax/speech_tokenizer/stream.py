"""The interface of a batch whose audio is decoded while its frames are generated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import jax
import numpy as np

from qtts_jax.generation.session import Session


class SpeechStream(ABC):
    """Generates and decodes a batch chunk by chunk; `SpeechTokenizer.open_stream` makes one.

    Only the first request may have an in-context reference, and then it must be the only one: its
    reference frames are decoded first and their audio is dropped.

    Attributes:
        session: the prefilled batch.
    """

    session: Session

    @abstractmethod
    def advance(self, frames: int) -> tuple[jax.Array, jax.Array]:
        """Dispatch `frames` more frames and their audio to the device, without waiting for them.

        Returns:
            codes [B, frames, Q] int32, -1 where a row has no frame, and samples [B, n] float32.
        """

    @abstractmethod
    def collect(self, codes: np.ndarray, wave: np.ndarray) -> np.ndarray:
        """The first request's samples, a writable float32 [n], of one result of `advance`.

        Args:
            codes, wave: the results in order, on the host.
        """

    @abstractmethod
    def flush(self, waves: Sequence[jax.Array] = ()) -> np.ndarray:
        """The first request's remaining samples float32 [n], once its frames have ended.

        Args:
            waves: audio of `advance` that was not passed to `collect`, still on the device.
        """
