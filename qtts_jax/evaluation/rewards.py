"""Rewards of speech: small functions of the scores of metric models, mixed by weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qtts_jax.errors import ConfigError
from qtts_jax.evaluation.bootstrap import Score

Scores = Mapping[str, Score]
LOWEST_OPINION = 1.0  # of both scales


def intelligibility(scores: Scores) -> float:
    """1 - character error rate, at least 0."""
    errors, letters = scores["cer"]
    return max(0.0, 1 - errors / letters) if letters else 0.0


def likeness(scores: Scores) -> float:
    """Similarity to the voice; 0 where there is no speech to compare."""
    return scores["sim"][0] if "sim" in scores else 0.0


def length(scores: Scores, tolerance: float) -> float:
    """0 to -1: how far the duration is off beyond the tolerance, as a share of what is expected."""
    return -min(1.0, max(0.0, scores["duration"][0] - tolerance))


def ending(scores: Scores) -> float:
    """-1 for speech that did not end, else 0."""
    return -scores["no_eos"][0]


def fluency(scores: Scores) -> float:
    """-1 for speech that repeats a phrase that the text does not, else 0."""
    return -scores["repetition"][0]


def opinion(scores: Scores, judge: str, least: float) -> float:
    """How far the predicted opinion is below `least`, 0 or negative (a hinge).

    An opinion above it is no reward, since a policy would learn to deceive the predictor.
    """
    found = scores[judge][0] if judge in scores else LOWEST_OPINION
    return min(0.0, found - least)


@dataclass(frozen=True)
class RewardMix:
    """Weights of the rewards; those of weight 0 are not computed.

    Attributes:
        intelligibility, likeness, length, ending, fluency, opinion: weights of the functions of
            this module.
        tolerance: part of the expected duration that speech may be off.
        opinion_judge: which predictor of opinion is a reward.
        least_opinion: see `opinion`.
        held_out: a metric model that is never a reward, so that its score stays a measurement.

    Raises:
        ConfigError: a weight is negative or not finite, all are 0, or a reward needs the judge that
            is held out.
    """

    intelligibility: float = 1.0
    likeness: float = 0.5
    length: float = 0.5
    ending: float = 1.0
    fluency: float = 0.5
    opinion: float = 0.2
    tolerance: float = 0.25
    opinion_judge: Literal["mos", "dnsmos"] = "mos"
    least_opinion: float = 3.0
    held_out: Literal["asr", "mos", "dnsmos"] = "dnsmos"

    def __post_init__(self) -> None:
        for name, weight in self.weights().items():
            if not 0 <= weight < math.inf:
                raise ConfigError(f"the weight of {name} must be 0 or more, not {weight}.")
        if not any(self.weights().values()):
            raise ConfigError("all rewards have weight 0; give one of them a weight.")
        if self.held_out in self.judges():
            raise ConfigError(
                f"the judge {self.held_out} is held out to measure, so it cannot reward; hold "
                "another one out, or give its reward the weight 0."
            )

    def weights(self) -> dict[str, float]:
        """The weights by name."""
        names = ("intelligibility", "likeness", "length", "ending", "fluency", "opinion")
        return {name: getattr(self, name) for name in names}

    def judges(self) -> list[str]:
        """The metric models (`panel.KINDS`) whose scores the rewards need."""
        needed = {
            "asr": self.intelligibility or self.fluency,
            "speaker": self.likeness,
            "duration": self.length,
            self.opinion_judge: self.opinion,
        }
        return [name for name, weight in needed.items() if weight]

    def rewards(self, scores: Scores) -> dict[str, float]:
        """Each reward that counts, not yet weighted, and their weighted sum as `reward`.

        Args:
            scores: of a `Panel` with `judges`, and `no_eos`.
        """
        functions = {
            "intelligibility": lambda: intelligibility(scores),
            "likeness": lambda: likeness(scores),
            "length": lambda: length(scores, self.tolerance),
            "ending": lambda: ending(scores),
            "fluency": lambda: fluency(scores),
            "opinion": lambda: opinion(scores, self.opinion_judge, self.least_opinion),
        }
        weights = {name: weight for name, weight in self.weights().items() if weight}
        found = {name: functions[name]() for name in weights}
        return found | {"reward": sum(weights[name] * value for name, value in found.items())}
