"""The layout of a talker example: which parts of an utterance its prompt has, and in what order.

A layout is drawn once, by `draw_choices` in `talker_plan`, and obeyed by `layout_utterance` in
`talker_examples`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qtts_jax.errors import ConfigError


@dataclass(frozen=True)
class LayoutChoice:
    """The layout of one example, and the clips and numbers that fill it.

    Attributes:
        stream_text: text beside the frames instead of before them.
        language_tag: the language is tagged; without it the prompt leaves the language open.
        preset: the voice is a preset speaker of the model.
        no_speaker: no voice at all, so the instruction or the text alone decides.
        in_context: the reference recording stands in the prompt, beside the x-vector.
        instruct: the instruction is part of the prompt.
        clip: position of the clip in the selection.
        instruction: number of the instruction among those of the clip, -1 for none.
        reference: position of another clip of the speaker, -1 for none.
        crop: where the mel of the reference begins, in [0, 1), of the places where it can.

    Raises:
        ConfigError: more than one voice is chosen, or a reference without a cloned voice.
    """

    stream_text: bool = False
    language_tag: bool = False
    preset: bool = False
    no_speaker: bool = False
    in_context: bool = False
    instruct: bool = False
    clip: int = -1
    instruction: int = -1
    reference: int = -1
    crop: float = 0.0

    def __post_init__(self) -> None:
        if self.preset + self.no_speaker + self.in_context > 1:
            raise ConfigError(
                "a layout has a preset speaker, no speaker, or a reference in its context; choose "
                "one of them."
            )


class LayoutChoices(NamedTuple):
    """Layouts of many examples: the fields of `LayoutChoice` as arrays [N]."""

    stream_text: np.ndarray
    language_tag: np.ndarray
    preset: np.ndarray
    no_speaker: np.ndarray
    in_context: np.ndarray
    instruct: np.ndarray
    clip: np.ndarray
    instruction: np.ndarray
    reference: np.ndarray
    crop: np.ndarray

    def row(self, i: int) -> LayoutChoice:
        """The layout of example i."""
        return LayoutChoice(*(field[i].item() for field in self))


@dataclass(frozen=True)
class LayoutMix:
    """Probabilities of the layouts, each applied where an utterance allows it.

    Attributes:
        stream_text: text beside the frames instead of before them.
        language_tag: the think block with the language instead of the nothink block (the paper's
            probabilistically activated thinking pattern, as far as it is public).
        preset: the preset speaker where there is an x-vector or a mel too.
        no_speaker: neither, so that the description or the text alone decides.
        in_context: the reference recording in the prompt, beside the x-vector.
        instruct: the instruction, where there is one.

    Raises:
        ConfigError: a probability is outside 0 to 1.
    """

    stream_text: float = 0.5
    language_tag: float = 0.5
    preset: float = 0.5
    no_speaker: float = 0.0
    in_context: float = 0.5
    instruct: float = 0.8

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ConfigError(f"{name} is a probability, and {value} is not.")

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """One bool of each field, in their order, for `count` examples: [6, count]."""
        return rng.random((6, count)) < np.asarray(list(vars(self).values()))[:, None]
