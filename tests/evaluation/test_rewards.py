"""Rewards of scores, their mix, and the judge that is held out."""

import pytest

from qtts_jax.errors import ConfigError
from qtts_jax.evaluation import rewards
from qtts_jax.evaluation.rewards import RewardMix

SCORES = {
    "cer": (3.0, 12.0),
    "sim": (0.8, 1),
    "duration": (0.4, 1),
    "no_eos": (1.0, 1),
    "repetition": (1.0, 1),
    "mos": (2.5, 1),
    "dnsmos": (3.4, 1),
}


def test_each_reward_is_a_function_of_a_score():
    assert rewards.intelligibility(SCORES) == pytest.approx(0.75)
    assert rewards.intelligibility({"cer": (30.0, 12.0)}) == 0
    assert rewards.likeness(SCORES) == 0.8 and rewards.likeness({}) == 0
    assert rewards.length(SCORES, 0.25) == pytest.approx(-0.15)
    assert rewards.length(SCORES, 0.5) == 0 and rewards.length({"duration": (9.0, 1)}, 0.2) == -1
    assert rewards.ending(SCORES) == -1 and rewards.fluency(SCORES) == -1
    assert rewards.opinion(SCORES, "mos", 3.0) == -0.5
    assert rewards.opinion(SCORES, "dnsmos", 3.0) == 0
    assert rewards.opinion({}, "mos", 3.0) == -2


def test_the_mix_is_the_weighted_sum():
    mix = RewardMix(
        intelligibility=2, likeness=1, length=0, ending=0.5, fluency=0, opinion=0.1, tolerance=0.3
    )
    found = mix.rewards(SCORES)
    assert found["reward"] == pytest.approx(2 * 0.75 + 0.8 - 0.5 - 0.05)
    assert set(found) == {"intelligibility", "likeness", "ending", "opinion", "reward"}
    assert mix.judges() == ["asr", "speaker", "mos"]


def test_a_held_out_judge_is_no_reward():
    with pytest.raises(ConfigError, match="the judge mos is held out"):
        RewardMix(held_out="mos")
    with pytest.raises(ConfigError, match="the judge asr is held out"):
        RewardMix(held_out="asr", intelligibility=0)
    assert "mos" not in RewardMix(held_out="mos", opinion=0).judges()
    assert "mos" not in RewardMix(held_out="mos", opinion_judge="dnsmos").judges()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"likeness": -1}, "likeness must be 0 or more"),
        ({"ending": float("nan")}, "ending must be 0 or more"),
        (dict.fromkeys(RewardMix().weights(), 0), "all rewards have weight 0"),
    ],
)
def test_impossible_weights_are_refused(changes, fault):
    with pytest.raises(ConfigError, match=fault):
        RewardMix(**changes)
