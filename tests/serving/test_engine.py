"""The serving engine: the codes of requests that run together, rows, cancellation, compilations."""

import copy
import gc
import queue
import random
import sys
import threading
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qtts_jax.errors import BusyError, GenerationError, RequestError
from qtts_jax.serving.engine import SWITCH_SECONDS, Engine
from qtts_jax.serving.loop import Loop
from qtts_jax.serving.prefill import Prefill
from qtts_jax.serving.unfinished import Unfinished
from qtts_jax.serving.utterance import EventQueue, Pace, Utterance
from qtts_jax.tts.voices import CustomVoice


def request(model, text, frames=12, **options):
    sampling = {"max_new_tokens": frames + 1, **options.pop("sampling", {})}
    return model.prepare(CustomVoice(text, "ryan", "english", sampling=sampling, **options))


def collect(events):
    """Codes, audio and the reason of the end."""
    codes, waves = [np.zeros((0, 16), np.int32)], [np.zeros(0, np.float32)]
    chunks = events.chunks()
    while True:
        try:
            chunk = next(chunks)
        except StopIteration as end:
            return np.concatenate(codes), np.concatenate(waves), end.value
        codes.append(chunk.codes)
        waves.append(chunk.wave)


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.002)


def test_python_does_not_keep_the_engine_waiting(engine):
    assert gc.get_freeze_count() > 0
    assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)


@pytest.mark.parametrize("ahead", [1, 2, 100])
def test_requests_that_arrive_at_any_time_get_their_offline_codes(
    model, engine, compiled, monkeypatch, ahead
):
    monkeypatch.setattr("qtts_jax.serving.loop.AHEAD", ahead)
    monkeypatch.setattr("qtts_jax.serving.loop.HOST_SHARE", 0.0)
    texts = ["Hi.", "A longer text than that.", "Three.", "The fourth one is greedy.", "5", "Six!"]
    requests = [
        request(
            model,
            text,
            frames=5 + 7 * i,
            seed=i,
            stream_text=i % 2 == 1,
            sampling={
                "do_sample": i != 3,
                "subtalker_dosample": i != 3,
                "top_k": 5 + 40 * i,
                "top_p": 0.7 if i == 2 else 1.0,
            },
        )
        for i, text in enumerate(texts)
    ]
    wanted = [model.synthesize([each])[0] for each in requests]
    compiled.clear()
    draw = random.Random(0)
    queues = [EventQueue() for _ in requests]
    for each, events in zip(requests, queues, strict=True):
        engine.submit(each, events)
        time.sleep(draw.random() * 0.02)
    got = [collect(events) for events in queues]
    assert compiled == []
    for (codes, wave, reason), speech in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(codes, speech.codes)
        np.testing.assert_allclose(wave, speech.wave, atol=1e-5)
        assert reason == ("stop" if speech.ended else "length")
    assert engine.running == engine.waiting == 0


def test_requests_that_arrive_together_are_prefilled_together(model, engine, compiled, monkeypatch):
    requests = [
        request(model, text, 5, seed=i)
        for i, text in enumerate(("One.", "Two.", "A much longer text than all the others.", "3."))
    ]
    wanted = [model.synthesize([each])[0] for each in requests]
    groups, prefill = [], engine._loop.prefill
    monkeypatch.setattr(engine._loop, "prefill", Counted(prefill, groups))
    compiled.clear()
    queues = [EventQueue() for _ in requests]
    hold = threading.Event()
    engine.call(hold.wait)  # all arrive before the engine looks
    for each, events in zip(requests, queues, strict=True):
        engine.submit(each, events)
    hold.set()
    for events, speech in zip(queues, wanted, strict=True):
        np.testing.assert_array_equal(collect(events)[0], speech.codes)
    assert compiled == []
    # The long one has a prompt of another padded length.
    assert sorted(groups) == [1, 3]


def test_a_new_request_begins_before_it_joins_those_that_run(model, engine, compiled, monkeypatch):
    first, second = request(model, "The first.", 40, seed=1), request(model, "Another.", 9, seed=2)
    wanted = [model.synthesize([each])[0] for each in (first, second)]
    group, calls = engine._loop.group, []
    for name in ("run_alone", "run", "add"):
        monkeypatch.setattr(group, name, noted(getattr(group, name), name, calls))
    insert = noted(group._programs.insert, "insert", calls)
    monkeypatch.setattr(group._programs, "insert", insert)
    compiled.clear()
    queues = [EventQueue(), EventQueue()]
    engine.submit(first, queues[0])
    wait_until(lambda: "run" in calls)
    engine.submit(second, queues[1])
    got = [collect(events)[0] for events in queues]
    assert compiled == []
    for codes, speech in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(codes, speech.codes)
    # The first becomes the batch as it is; the second makes a frame and is then moved into it.
    assert calls[:2] == ["add", "run"]
    alone = calls.index("run_alone")
    assert calls[alone : alone + 4] == ["run_alone", "add", "insert", "run"]
    assert calls.count("run_alone") == 1


def test_a_first_chunk_that_is_on_its_way_counts_from_its_expected_end(model, engine):
    loop = Loop(engine._loop.prefill, 0.08, queue.SimpleQueue(), Unfinished())
    new = Utterance(request(model, "New."), None, (1, 4), False, print, text_ids=0)
    assert loop._runs_dry(new, now=1.0) is None
    loop._flights.append(SimpleNamespace(end=2.0))
    new.frames = 1
    assert loop._runs_dry(new, now=1.0) == pytest.approx(2.08)
    assert loop._runs_dry(new, now=3.0) == pytest.approx(3.08)
    new.prebuffer = 5  # nothing is played yet
    assert loop._runs_dry(new, now=1.0) is None


def test_all_of_a_row_is_placed(model, engine):
    """A row that becomes the batch, or begins alone, would else need other programs."""
    params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), model.params)
    assert not any(leaf.committed for leaf in jax.tree.leaves(params))
    loose = copy.copy(model)
    loose.params = params
    rows = Prefill(loose, engine.settings)([request(model, "Hello.")])
    assert all(leaf.committed for leaf in jax.tree.leaves(rows))


def noted(function, name, calls):
    """`function`, whose calls are noted by this name."""

    def call(*args):
        calls.append(name)
        return function(*args)

    return call


class Counted:
    """A `Prefill` that notes how many requests it is given."""

    def __init__(self, prefill, groups):
        self._prefill, self._groups = prefill, groups

    def __getattr__(self, name):
        return getattr(self._prefill, name)

    def __call__(self, requests):
        self._groups.append(len(requests))
        return self._prefill(requests)


def test_a_faulty_request_costs_no_other_of_its_prefill(model, engine, monkeypatch):
    good, bad = request(model, "Good.", 4, seed=1), request(model, "Bad!!", 4, seed=13)

    class Broken(Counted):
        def __call__(self, requests):
            if any(each.seed == 13 for each in requests):
                raise ValueError("bad")
            return self._prefill(requests)

    monkeypatch.setattr(engine._loop, "prefill", Broken(engine._loop.prefill, []))
    hold, queues = threading.Event(), [EventQueue(), EventQueue()]
    engine.call(hold.wait)
    for each, events in zip((good, bad), queues, strict=True):
        engine.submit(each, events)
    hold.set()
    assert len(collect(queues[0])[0]) == 4
    with pytest.raises(ValueError, match="bad"):
        collect(queues[1])


def test_a_prebuffer_holds_the_first_audio(model, engine):
    whole = request(model, "A text.", 20, seed=6)
    speech = model.synthesize([whole])[0]
    for prebuffer, first in ((0, 1), (3, 3), (12, 12), (1000, len(speech.codes))):
        events, made = EventQueue(), []

        def deliver(event, events=events, made=made):
            made += [each.made for each in engine._unfinished.now()]
            events(event)

        engine.submit(whole, deliver, pace=Pace(prebuffer=prebuffer))
        np.testing.assert_array_equal(collect(events)[0], speech.codes)
        assert first <= made[0] < first + engine.settings.chunk_frames[-1]


def test_a_cancelled_request_frees_its_row_at_the_next_chunk(model, engine):
    long = [EventQueue() for _ in range(4)]
    utterances = [engine.submit(request(model, "Long.", 49, seed=9), each) for each in long]
    events = EventQueue()
    engine.submit(request(model, "Next.", 3, seed=1), events)
    wait_until(lambda: utterances[1].made > 0)
    assert engine.waiting == 1
    engine.cancel(utterances[1])
    assert collect(long[1])[2] == "cancelled"
    assert collect(events)[2] == "length"
    assert utterances[1].frames - utterances[1].made <= engine.settings.chunk_frames[-1]
    for utterance in utterances:
        engine.cancel(utterance)
    for each in (long[0], *long[2:]):
        collect(each)
    wait_until(lambda: engine.running == 0)


def test_a_full_queue_refuses(model, engine):
    each, accepted = request(model, "Text.", 49, seed=2), []

    def submit_many():
        for _ in range(4 + engine.settings.max_waiting + 5):
            accepted.append(engine.submit(each, EventQueue()))

    with pytest.raises(BusyError, match="waiting"):
        submit_many()
    for utterance in accepted:
        engine.cancel(utterance)
    wait_until(lambda: engine.running == engine.waiting == 0)


def test_text_that_arrives_slowly_gives_the_codes_of_the_whole_text(model, engine, compiled):
    text = "A text that comes in parts, some of them late."
    whole = request(model, text, 49, seed=3, stream_text=True)
    speech = model.synthesize([whole])[0]
    trailing = whole.prompt.trailing
    start = request(model, text[0], 49, seed=3, stream_text=True)
    # The first text id is in the prompt; all others are appended.
    prompt = type(start.prompt)(**{**vars(whole.prompt), "trailing": trailing[:0]})
    opened = type(start)(prompt, whole.sampling, whole.seed)
    compiled.clear()
    events, other = EventQueue(), EventQueue()
    utterance = engine.submit(opened, events, open_text=True)
    engine.submit(request(model, "Beside.", 30, seed=1), other)
    for i in range(0, len(trailing), 3):
        engine.append_text(utterance, trailing[i : i + 3].tolist())
        time.sleep(0.01)
    engine.end_text(utterance)
    codes, _, _ = collect(events)
    collect(other)
    assert compiled == []
    np.testing.assert_array_equal(codes, speech.codes)


def test_the_runaway_guard_bounds_text_that_arrived_in_parts(model, engine, compiled):
    whole = request(model, "A text that comes in parts.", 49, seed=3, stream_text=True)
    wanted = model.synthesize([whole])[0].codes
    assert len(wanted) > 10
    opened = request(model, "A text that comes in parts.", 49, seed=3, stream_text=True)
    compiled.clear()
    events = EventQueue()
    utterance = engine.submit(opened, events, open_text=True)
    engine.end_text(utterance, budget=10)
    codes, _, reason = collect(events)
    assert reason == "length" and compiled == []
    np.testing.assert_array_equal(codes, wanted[:10])


def test_requests_beyond_the_limits_are_refused(model, engine):
    for faulty, message in (
        (request(model, "word " * 60), "positions"),
        (request(model, "word " * 90, stream_text=True), "text takes"),
    ):
        with pytest.raises(RequestError, match=message):
            engine.submit(faulty, EventQueue())
    events = EventQueue()
    engine.submit(request(model, "Text.", 1000, seed=5), events)
    codes, _, reason = collect(events)
    assert len(codes) == 50 or reason == "stop"  # 4 s


def test_an_engine_that_stops_finishes_what_it_has(model, engine):
    last = Engine(model, engine.settings)
    last.start()
    events = EventQueue()
    last.submit(request(model, "Last words.", 9, seed=4), events)
    last.stop()
    assert collect(events)[2] in ("length", "stop")
    with pytest.raises(BusyError, match="stopping"):
        last.submit(request(model, "Too late."), EventQueue())


def test_logits_that_are_not_finite_fail_their_own_request(model, engine, monkeypatch):
    run = engine._loop.group.run

    def broken(frames):
        codes, wave = run(frames)
        codes = np.array(codes)
        row = engine._loop.group.tenants.index(faulty)
        codes[row] = -2
        return jnp.asarray(codes), wave

    monkeypatch.setattr(engine._loop.group, "run", broken)
    events = EventQueue()
    faulty = engine.submit(request(model, "Broken.", 20, seed=1), events)
    with pytest.raises(GenerationError, match="NaN"):
        collect(events)
    monkeypatch.undo()
    assert engine.healthy and engine.running == 0


def test_a_mesh_that_spans_processes_is_refused(model, monkeypatch):
    devices = np.array([[SimpleNamespace(process_index=i)] for i in (0, 0, 1)])
    mesh = SimpleNamespace(devices=devices)
    monkeypatch.setattr("qtts_jax.serving.prefill.mesh_of", lambda params: mesh)
    with pytest.raises(RequestError, match="the mesh has devices of 2; start one in each process"):
        Engine(model)
