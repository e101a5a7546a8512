"""What stops a run: values that are not finite, and a loss that rises beyond a margin."""

import argparse
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.nano.talker_recipe import NANO_TALKER_TRAINER
from experiments.nano.tokenizer_recipe import NANO_TOKENIZER_TRAINER
from experiments.train import new_speaker, run
from qtts_jax.errors import TrainingError
from qtts_jax.training.divergence import DivergenceDetector
from tests.support.line_task import LineTask


@pytest.fixture
def recipes():
    return {
        "codes": NANO_TOKENIZER_TRAINER["codes"],
        "talker": NANO_TALKER_TRAINER,
        "finetune": new_speaker.TRAINER,
    }


def line(*points, steps=400):
    """Losses on straight lines between the points, the same number of steps each."""
    parts = [np.linspace(a, b, steps) for a, b in itertools.pairwise(points)]
    return np.concatenate(parts)


def stops_at(margin, losses):
    """The loss of the step that stops a run, None for none."""
    watch = DivergenceDetector(margin)
    for step, loss in enumerate(losses):
        try:
            watch.check(step, {"loss": float(loss)})
        except TrainingError:
            return float(loss)
    return None


# The losses of `embedded_checkpoint/MODEL_CARD.md` and of guesses among all codes.
@pytest.mark.parametrize(
    ("recipe", "healthy", "noise", "away"),
    [
        ("codes", line(110, 20, 5, 1.3, 2.2, 1.3), 0.2, 20.6),
        ("codes", line(1.3, 2.2, 1.3), 0.2, 20.6),
        ("talker", line(68, 40, 32, 37, 32), 0.1, 68),
        ("talker", line(32, 37, 32), 0.1, 68),
        ("finetune", line(5, 3, 4, 1), 0.3, 12),
        ("finetune", line(3, 3), 0.3, 12),
    ],
)
def test_a_recipe_stops_what_diverges_and_nothing_else(recipes, recipe, healthy, noise, away):
    margin, rng = recipes[recipe].divergence_margin, np.random.default_rng(0)
    healthy = healthy * rng.lognormal(0, noise, len(healthy))
    assert stops_at(margin, healthy) is None
    # A loss that goes away at once, and one that does so slowly.
    for steps in (2, 2000):
        lost = np.concatenate([healthy, line(healthy[-1], away, steps=steps), np.full(400, away)])
        assert stops_at(margin, lost) is not None


def test_a_loss_with_discriminators_is_not_judged():
    for stage in ("decoder", "joint"):
        assert NANO_TOKENIZER_TRAINER[stage].divergence_margin is None


@pytest.mark.parametrize(
    ("given", "wanted"), [([], 10.0), (["--divergence-margin", "3"], 3.0),
                          (["--divergence-margin", "inf"], float("inf"))],
)  # fmt: skip
def test_the_command_line_can_change_the_margin_of_a_recipe(given, wanted):
    command, parser = run, argparse.ArgumentParser()
    codes, rule = NANO_TOKENIZER_TRAINER["codes"], NANO_TALKER_TRAINER.optimizers["talker"]
    # The parser of a command with several stages has the defaults of one of them.
    command.add_arguments(parser, NANO_TOKENIZER_TRAINER["joint"])
    args = parser.parse_args(["--out", "run", *given])
    base = replace(codes, optimizers={"one": rule, "two": rule})
    assert command.trainer_settings(args, base, LineTask()).divergence_margin == wanted
    assert stops_at(float("inf"), line(1, 1e6)) is None


def test_a_watch_goes_on_where_it_was():
    losses = np.random.default_rng(0).normal(3, 0.1, 120)
    whole, first = DivergenceDetector(1.0), DivergenceDetector(1.0)
    for step, loss in enumerate(losses):
        whole.check(step, {"loss": loss})
        if step < 70:
            first.check(step, {"loss": loss})
    second = DivergenceDetector(1.0)
    second.restore(json.loads(json.dumps(first.state())))
    for step, loss in enumerate(losses[70:], 70):
        second.check(step, {"loss": loss})
    assert second.state() == whole.state()
    with pytest.raises(TrainingError, match="step 121 gave inf for accuracy, loss"):
        second.check(121, {"loss": float("inf"), "accuracy": float("inf"), "other": 1.0})
