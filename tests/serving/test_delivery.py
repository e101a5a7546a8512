"""When audio is delivered, and what the engine expects of its programs."""

import time
from types import SimpleNamespace

import numpy as np

from qtts_jax.serving.delivery import GATHERED, MANY, Delivery
from qtts_jax.serving.timetable import POLL, Timetable
from qtts_jax.serving.utterance import Chunk, Done, Utterance

SAMPLES, SECONDS = 10, 0.08


def utterance(events, prebuffer=0):
    return Utterance(None, None, (1, 4), False, events.append, 0, prebuffer=prebuffer)


def chunk(frames):
    return Chunk(np.zeros(frames * SAMPLES, np.float32), np.zeros((frames, 16), np.int32))


def push(delivery, one, frames, rows):
    delivery.hold(one, chunk(frames))
    if delivery.is_due(one, rows):
        delivery.release(one)


def test_the_first_audio_is_delivered_at_once_and_the_rest_when_there_is_time():
    events, delivery = [], Delivery(SAMPLES, SECONDS, offline=False)
    one = utterance(events)
    push(delivery, one, 1, rows=1)
    assert len(events) == 1
    push(delivery, one, 4, rows=1)
    delivery.end(one, Done("stop"))
    assert len(events) == 1
    delivery.send()
    assert [type(event) for event in events] == [Chunk, Chunk, Done]
    assert [len(event.codes) for event in events[:2]] == [1, 4]
    delivery.send()
    assert len(events) == 3


def test_a_prebuffer_comes_as_one_chunk():
    events, delivery = [], Delivery(SAMPLES, SECONDS, offline=False)
    one = utterance(events, prebuffer=6)
    for frames in (1, 4, 4):
        assert not events
        push(delivery, one, frames, rows=1)
    assert [len(event.codes) for event in events] == [9]


def test_audio_is_gathered_where_many_rows_run_and_the_client_has_enough():
    for rows, parts in ((MANY - 1, [4] * 9), (MANY, [4, 4, 4, 4, 16, 4])):
        events, delivery = [], Delivery(SAMPLES, SECONDS, offline=False)
        one = utterance(events)
        for _ in range(9):  # faster than they play: 16 frames are more than a second
            push(delivery, one, 4, rows)
        delivery.end(one, Done("stop"))
        delivery.send()
        got = [len(event.codes) for event in events[:-1]]
        assert got == parts
        assert max(got) <= GATHERED


def test_a_client_that_leaves_during_a_delivery_costs_no_other():
    def gone(_):
        raise ConnectionError

    delivery, events = Delivery(SAMPLES, SECONDS, offline=True), []
    left, other = utterance([]), utterance(events)
    left.deliver = gone
    for one in (left, other):
        push(delivery, one, 4, rows=2)
    delivery.send()
    assert left.cancelled and len(events) == 1


def test_programs_are_expected_to_take_what_they_took(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    times = Timetable()
    assert times.program(4, 1) == times.prefill(4) == 0.0
    assert times.lead(4, False) == POLL
    flight = times.dispatched(None, None, [None] * 4, 1, begin=0.0)
    clock.now = 0.5
    times.ended(flight)
    assert times.program(4, 1) == 0.5
    # The next one is dispatched behind a prefill, which took what the program alone does not.
    clock.now = 1.0
    times.prefilled(4, begin=0.75)
    flight = times.dispatched(None, None, [None] * 4, 1, begin=1.0)
    assert flight.begin == 0.75 and flight.end == 1.5
    clock.now = 1.5
    times.ended(flight)
    assert times.prefill(4) == 0.25
    assert times.host_share(flight) == 0.0
    # Two in a row: the second begins when the first has ended.
    first = times.dispatched(None, None, [None] * 4, 1, begin=1.5)
    second = times.dispatched(None, None, [None] * 4, 1, begin=1.5)
    assert (first.end, second.end) == (2.0, 2.5)


def test_the_share_of_the_host_is_that_of_the_dispatch(monkeypatch):
    clock = SimpleNamespace(now=0.25)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    times = Timetable()
    flight = times.dispatched(None, None, [None] * 4, 4, begin=0.0)
    clock.now = 1.0
    times.ended(flight)
    assert times.host_share(flight) == 0.25
    assert times.lead(4, False) == POLL + 1.5 * 0.25
    times.admitted(begin=0.5)
    assert times.lead(4, True) == times.lead(4, False) + 0.5
