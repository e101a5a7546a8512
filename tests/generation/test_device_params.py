"""A text embedding in the host's memory gives what one on the device gives."""

import jax
import numpy as np
import pytest

from qtts_jax import QwenTTS
from qtts_jax.generation.device_params import gather_text_rows, with_table_on_device
from qtts_jax.layers import storage_policy
from qtts_jax.layers.host_table import HostTable


def table(params):
    return params["talker"]["text_embedding"]["table"]


@pytest.mark.parametrize("weights", [None, "int8"])
def test_codes_are_those_of_a_table_on_the_device(converted, monkeypatch, weights):
    directory = converted("custom_voice")
    options = {"dtype": "float32", "weights": weights}
    plain = QwenTTS.from_pretrained(directory, **options)
    monkeypatch.setattr(storage_policy, "tables_on_host", lambda: True)
    lean = QwenTTS.from_pretrained(directory, **options)
    assert isinstance(table(lean.params), HostTable)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(table(lean.params).table))
    assert lean.describe() == plain.describe()
    made = []
    for tts in (plain, lean):
        requests = [
            tts.prepare_custom_voice(
                text, "ryan", "english", non_streaming_mode=whole, seed=2, max_new_tokens=5
            )
            for text, whole in (("A text.", True), ("Another, longer text.", False), ("B", True))
        ]
        parts = iter(["Text ", "in ", "parts."])
        streamed = tts.stream_custom_voice(parts, "ryan", "english", seed=2, max_new_tokens=4)
        made.append(([s.codes for s in tts.synthesize(requests)], np.concatenate(list(streamed))))
    for a, b in zip(*(codes for codes, _ in made), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(made[0][1], made[1][1])


def test_rows_are_put_where_the_ids_point():
    values = np.arange(12.0).reshape(6, 2)
    params = {"talker": {"text_embedding": {"table": HostTable(values)}, "other": 1}}
    ids = np.array([[3, -1], [5, 3]], np.int32)
    given, places, more = gather_text_rows(params, ids, np.array([0], np.int32))
    assert given["talker"]["other"] == 1
    np.testing.assert_array_equal(places >= 0, ids >= 0)
    np.testing.assert_array_equal(table(given)[places][ids >= 0], values[ids[ids >= 0]])
    np.testing.assert_array_equal(table(given)[more], values[:1])


def test_a_table_can_be_put_on_the_device_again():
    values = np.arange(12.0, dtype=np.float32).reshape(6, 2)
    host = {"talker": {"text_embedding": {"table": HostTable(values)}, "other": jax.numpy.ones(1)}}
    params = with_table_on_device(host)
    assert isinstance(table(params), jax.Array)
    np.testing.assert_array_equal(table(params), values)
    assert with_table_on_device(params) is params
    ids = np.array([[3, -1]], np.int32)
    assert gather_text_rows(params, ids) == (params, ids)


def test_tables_of_one_shape_share_programs_and_cannot_be_read_by_them():
    traced = []

    @jax.jit
    def count(params):
        traced.append(params["table"])
        return params["x"] + 1

    for shape in ((4, 3), (4, 3), (5, 3)):
        count({"table": HostTable(np.random.default_rng(0).normal(size=shape)), "x": 1.0})
    assert len(traced) == 2
    with pytest.raises(TypeError, match="in the host's memory"):
        traced[0][...]
