"""A request moves between few files: the counts that were reached are upper bounds.

A newcomer who follows a request goes to and fro as often. A change that needs more hops may raise a
bound, if it says why.
"""

import numpy as np
import pytest

import qtts_jax.embedded
from experiments.bench.hops import HopCounter, trips
from qtts_jax import QwenTTS
from qtts_jax.io.audio import read_audio

MOST = {
    "text -> wave": 66,
    "text -> stream": 103,
    "in-context clone": 108,
    "wave -> codes": 12,
    "codes -> wave": 8,
}


@pytest.mark.filterwarnings("ignore:the speech .* was cut by max_new_tokens")
def test_no_trip_needs_more_hops():
    found = trips(QwenTTS.from_pretrained(qtts_jax.embedded.DIRECTORY))
    assert found.keys() == MOST.keys()
    hops = {}
    for name, run in found.items():
        run()  # compiles
        with HopCounter() as counter:
            run()
        hops[name] = counter.hops
    assert all(0 < hops[name] <= most for name, most in MOST.items()), hops


def test_a_hop_is_a_move_to_another_file_and_the_way_back():
    with HopCounter() as counter:
        read_audio((np.ones(100, np.float32), 24000))
    assert counter.path == ["io/audio.py", "io/audio_checks.py", "io/audio.py"]
    assert counter.hops == 2 < counter.calls
