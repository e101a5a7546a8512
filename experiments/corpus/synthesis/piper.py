"""A Piper voice on a device: batches of clips with the samples that each phoneme takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments.corpus.synthesis.cpu_worker import Job, find

# Values of the exported graph of a Piper voice, by their names there: how much longer the
# phonemes are than predicted, and what they take, in frames of `HOP` samples.
LENGTH, DURATIONS, OUTPUT = "/Gather_1_output_0", "/Ceil_output_0", "output"
HOP = 256
# Jobs sorted by length at a time, and the phoneme ids of a batch, padding included.
_SORTED, _BATCH_IDS = 4096, 5000


class PiperVoice:
    """A Piper voice on a device.

    Attributes:
        lead: tokens that the voice says before those of a job.
    """

    lead = 0

    def __init__(self, models: Sequence[Path], device: str) -> None:
        from experiments.corpus.onnx.torch_runner import Graph

        self._graph = Graph(find(models, "piper.onnx"), device, [LENGTH, DURATIONS])
        config = json.loads(find(models, "piper.json").read_text("utf-8"))
        self._chance, self.rate = config["inference"], config["audio"]["sample_rate"]
        self._device = device

    @staticmethod
    def batches(jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """Jobs of about one length."""
        for first in range(0, len(jobs), _SORTED):
            group = sorted(jobs[first : first + _SORTED], key=lambda each: len(each["tokens"]))
            while group:
                size = max(_BATCH_IDS // len(group[-1]["tokens"]), 1)
                yield group[-size:]
                group = group[:-size]

    def __call__(self, jobs: Sequence[Job]) -> tuple[np.ndarray, np.ndarray]:
        """Waves float16 [B, T], and the samples that each id takes, int64 [B, N]."""
        import torch

        longest = max(len(each["tokens"]) for each in jobs)
        ids = np.zeros((len(jobs), longest), np.int64)
        for row, each in zip(ids, jobs, strict=True):
            row[: len(each["tokens"])] = each["tokens"]
        pace = [self._chance["length_scale"] * each["pitch"] / each["speed"] for each in jobs]
        inputs = {
            "input": torch.from_numpy(ids).to(self._device),
            "input_lengths": torch.tensor([len(each["tokens"]) for each in jobs]).to(self._device),
            "scales": torch.tensor(
                [self._chance["noise_scale"], 1.0, self._chance["noise_w"]], device=self._device
            ),
            LENGTH: torch.tensor(pace, device=self._device)[:, None, None],
        }
        wave, frames = self._graph(inputs, [OUTPUT, DURATIONS])
        samples = HOP * frames[:, 0].to(torch.int64)
        return wave.flatten(1).half().cpu().numpy(), samples.cpu().numpy()
