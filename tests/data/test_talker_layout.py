"""Layouts of talker examples: drawn by their probabilities, and obeyed as they are."""

import dataclasses

import numpy as np
import pytest

from qtts_jax.data.talker_examples import layout_utterance
from qtts_jax.data.talker_layout import LayoutChoice, LayoutMix
from qtts_jax.data.talker_plan import ClipTable, draw_choices, example_positions
from qtts_jax.errors import ConfigError, TrainingError
from tests.support.small_talker import BOOKS, MODEL, ROLE, utterances

UTTERANCE = dataclasses.replace(
    utterances(1)[0],
    speaker="ryan",
    embedding=np.ones(64, np.float32),
    reference_codes=np.zeros((2, BOOKS), int),
    reference_ids=(5,),
    instruct_ids=(8, 9),
)


def lay_out(**choice):
    return layout_utterance(MODEL, ROLE, UTTERANCE, LayoutChoice(**choice))


def table(count):
    """Clips that are all like `UTTERANCE`."""
    frames = len(UTTERANCE.codes)
    return ClipTable(
        text=np.full(count, len(UTTERANCE.text_ids)),
        reference_text=np.ones(count, int),
        frames=np.full(count, frames),
        references=[np.arange(count)] * count,
        preset=np.ones(count, bool),
        tagged=np.ones(count, bool),
        dialect=np.zeros(count, bool),
        instructions=[np.asarray([2])] * count,
        role=len(ROLE),
        cloning=True,
    )


def test_layouts_follow_the_probabilities_of_their_mix():
    mix = LayoutMix(
        stream_text=0.3, language_tag=0.6, preset=0.2, no_speaker=0.5, in_context=0.25, instruct=0.9
    )
    count = 4000
    choices = draw_choices(table(count), mix, np.random.default_rng(0), np.arange(count))
    # An instruction is certain where there is no speaker.
    wanted = {"stream_text": 0.3, "language_tag": 0.6, "preset": 0.1, "no_speaker": 0.5,
              "in_context": 0.1, "instruct": 0.95, "crop": 0.5}  # fmt: skip
    for name, share in wanted.items():
        assert getattr(choices, name).mean() == pytest.approx(share, abs=0.03), name
    assert all(isinstance(choices.row(i), LayoutChoice) for i in range(count))


def test_an_example_has_what_its_layout_names_and_nothing_else():
    c = MODEL.talker
    plain = lay_out(no_speaker=True)
    assert c.nothink_id in plain.rows.codec and not plain.rows.speaker.any()
    assert not (plain.rows.text == 8).any() and 3061 not in plain.rows.codec
    assert c.think_id in lay_out(no_speaker=True, language_tag=True).rows.codec
    assert lay_out(no_speaker=True, instruct=True).rows.text[:2].tolist() == [8, 9]
    assert 3061 in lay_out(preset=True).rows.codec
    cloned, in_context = lay_out(), lay_out(in_context=True)
    assert cloned.rows.speaker.sum() == in_context.rows.speaker.sum() == 1
    assert not (cloned.rows.residual[: cloned.start + 1] >= 0).any()
    reference = in_context.rows.residual[: in_context.start + 1] >= 0
    assert reference.any(axis=1).sum() == 2
    assert len(lay_out(stream_text=True).rows) < len(cloned.rows)


@pytest.mark.parametrize(
    ("choice", "lacking", "part"),
    [
        ({"preset": True}, {"speaker": None}, "a preset speaker"),
        ({}, {"embedding": None}, "an x-vector or a mel"),
        ({"in_context": True}, {"reference_codes": None}, "reference codes"),
        ({"instruct": True}, {"instruct_ids": ()}, "an instruction"),
    ],
)
def test_a_layout_that_an_utterance_does_not_allow_is_refused(choice, lacking, part):
    utterance = dataclasses.replace(UTTERANCE, **lacking)
    with pytest.raises(TrainingError, match=f"needs {part}, which the utterance lacks"):
        layout_utterance(MODEL, ROLE, utterance, LayoutChoice(**choice))


def test_layouts_that_contradict_themselves_are_refused():
    for wrong in ({"preset": True, "no_speaker": True}, {"in_context": True, "preset": True}):
        with pytest.raises(ConfigError, match="choose one of them"):
            LayoutChoice(**wrong)
    with pytest.raises(ConfigError, match="probability"):
        LayoutMix(instruct=1.5)


def test_planned_positions_count_every_part():
    t = table(3)
    mix = LayoutMix(0.0, 1.0, 0.0, 0.0, 1.0, 1.0)
    choices = draw_choices(t, mix, np.random.default_rng(0), np.arange(3))
    example = lay_out(language_tag=True, in_context=True, instruct=True)
    # The reference of the plan is as long as the clip; that of the utterance has 2 frames.
    wanted = len(example.rows) - 2 + len(UTTERANCE.codes)
    assert example_positions(t, choices).tolist() == [wanted] * 3
