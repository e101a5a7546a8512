"""The choice of the next program, and the sizes that are compiled."""

import pytest

from qtts_jax.errors import RequestError
from qtts_jax.serving.scheduler import Costs, Playing, admits, frames_of_next_program, pays
from qtts_jax.serving.settings import EngineSettings, sizes_up_to

SIZES = (1, 4, 16)
NOW = 100.0


def frames(*playing, cost=lambda n: 0.02 * n, played=0.08):
    return frames_of_next_program(SIZES, playing, NOW, cost, played)


def test_a_first_chunk_does_not_wait_for_a_long_one():
    assert frames(Playing(NOW + 9, 16), Playing(None, 1)) == 1
    assert frames(Playing(NOW + 9, 16), Playing(NOW + 9, 4)) == 4


def test_chunks_are_as_long_as_no_client_runs_dry():
    assert frames(Playing(NOW + 9, 16)) == 16
    assert frames(Playing(NOW + 9, 16), Playing(NOW + 0.2, 16)) == 4
    assert frames(Playing(NOW + 0.03, 16)) == 1


def test_a_device_that_is_too_slow_makes_most_frames_a_second():
    assert frames(Playing(NOW - 1, 16)) == 16
    assert frames(Playing(NOW - 1, 16), Playing(None, 1)) == 1


def test_few_rows_run_short_programs_where_they_are_fast_enough_by_far():
    late = [Playing(NOW + 9, 16)] * 16
    assert frames(*late, cost=lambda n: 0.005 * n) == 1
    assert frames(*late, late[0], cost=lambda n: 0.005 * n) == 16  # more rows
    assert frames(late[0], cost=lambda n: 0.005 * n) == 16  # a single one
    assert frames(*late, cost=lambda n: 0.005 * n, played=0.0) == 16  # offline
    assert frames(*late, cost=lambda n: 0.002 + 0.002 * n) == 1
    assert frames(*late, cost=lambda n: 0.004 + 0.001 * n) == 16  # a long one is much cheaper
    assert frames(*late, cost=lambda n: 0.005 * (n < 16)) == 16  # of which nothing is known yet


def test_a_prefill_waits_for_clients_that_would_run_dry_but_not_forever():
    assert admits([], NOW, 1.0, admitted_last=True)
    assert admits([Playing(None, 1)], NOW, 1.0, admitted_last=True)
    assert admits([Playing(NOW + 2, 4)], NOW, 1.0, admitted_last=True)
    assert not admits([Playing(NOW + 0.5, 4)], NOW, 1.0, admitted_last=True)
    assert admits([Playing(NOW + 0.5, 4)], NOW, 1.0, admitted_last=False)


def test_requests_gather_where_many_rows_would_stand_still():
    assert pays([0.0], running=0, prefill=0.01)
    assert pays([0.01], running=8, prefill=0.01)
    assert not pays([0.01], running=200, prefill=0.01)
    assert pays([0.1] * 4, running=200, prefill=0.01)


def test_costs_follow_the_measurements():
    costs = Costs(weight=0.5)
    assert costs("a") == 0.0
    costs.measured("a", 1.0)
    costs.measured("a", 2.0)
    assert costs("a") == 1.5


def test_sizes():
    assert [sizes_up_to(n, 4) for n in (1, 2, 4, 8, 64)] == [
        (1,),
        (1, 2),
        (1, 4),
        (1, 4, 8),
        (1, 4, 16, 64),
    ]
    prefills = [EngineSettings(rows=rows).prefill_sizes for rows in ((1,), (1, 2), (1, 8))]
    assert prefills == [(1,), (1, 4), (1, 4)]
    settings = EngineSettings(max_prompt=300, chunk_frames=(1, 4))
    assert settings.prompt_sizes == [32, 64, 128, 256, 512]
    # 300 + 750 + 4 positions in steps of 64; 1,024 would be too close to the largest.
    assert settings.capacities(750, 2048) == [256, 1088]
    assert settings.capacities(10, 2048) == [256, 512]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": (4, 1)}, "rows"),
        ({"chunk_frames": ()}, "chunk_frames"),
        ({"chunk_frames": (2, 4)}, "begin with 1"),
        ({"max_seconds": 0}, "max_seconds"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(RequestError, match=message):
        EngineSettings(**fields)
