"""Kokoro-82M on a device: clips with the samples that each phoneme takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments.corpus.synthesis.cpu_worker import RATE, Job, find, style_of

# The value of the graph that holds what each token takes, in frames of `HOP` samples.
DURATIONS, OUTPUT = "/encoder/Gather_output_0", "audio"
HOP = 600
# The graph speaks one clip at a time; so many are started before the first is fetched.
_TOGETHER = 8


class KokoroVoice:
    """All voices of Kokoro on a device, and those drawn from them.

    Attributes:
        lead: tokens that the voice says before those of a job.
    """

    rate, lead = RATE, 1

    def __init__(self, models: Sequence[Path], device: str) -> None:
        from experiments.corpus.onnx.torch_runner import Graph

        self._graph = Graph(find(models, "kokoro.onnx"), device, [DURATIONS])
        self._styles = dict(np.load(find(models, "voices.npz")))
        self._device = device

    @staticmethod
    def batches(jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """A few jobs at a time, in their order."""
        for first in range(0, len(jobs), _TOGETHER):
            yield list(jobs[first : first + _TOGETHER])

    def __call__(self, jobs: Sequence[Job]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Waves float16 [T], and the samples that each token takes, int64 [N + 2].

        The tokens are those of the job and a pad at either end.
        """
        import torch

        said = []
        for each in jobs:
            tokens = each["tokens"]
            style = style_of(self._styles, each["voice"], len(tokens))
            given = {
                "tokens": torch.tensor([[0, *tokens, 0]]),
                "style": torch.from_numpy(style),
                "speed": torch.tensor([each["speed"]], dtype=torch.float32),
            }
            given = {k: x.to(self._device, non_blocking=True) for k, x in given.items()}
            wave, frames = self._graph(given, [OUTPUT, DURATIONS])
            said.append((wave.half(), frames))
        waves = [wave.cpu().numpy() for wave, _ in said]
        return waves, [HOP * frames.cpu().numpy().astype(np.int64) for _, frames in said]
