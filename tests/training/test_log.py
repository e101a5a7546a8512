"""The record of a run: lines, samples, TensorBoard, and what a restart drops."""

import numpy as np
import pytest
import soundfile

from qtts_jax.training.log import RunLog, read_metrics

WAVE = np.sin(np.arange(6000) / 10).astype(np.float32) / 2


def test_lines_are_on_disk_at_once_and_a_restart_drops_later_ones(tmp_path):
    with RunLog(tmp_path, tensorboard=False) as log:
        for step in range(1, 5):
            log.scalars(step, {"loss": 1 / step})
            assert read_metrics(tmp_path)[-1]["step"] == step
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "loss"')
    with RunLog(tmp_path, 2, tensorboard=False) as log:
        log.scalars(3, {"loss": 7.0})
    rows = read_metrics(tmp_path)
    assert [(r["step"], r["loss"]) for r in rows] == [(1, 1), (2, 0.5), (3, 7)]


def test_audio_is_kept_with_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    with RunLog(tmp_path, tensorboard=False) as log:
        log.audio(12, "ryan", WAVE, 24000)
    wave, rate = soundfile.read(tmp_path / "samples/00000012/ryan.wav", dtype="float32")
    assert rate == 24000
    np.testing.assert_array_equal(wave, WAVE)
    picture = imread(tmp_path / "samples/00000012/ryan.png")
    assert picture.shape[0] > 100 and picture[..., :3].std() > 0.05


def test_tensorboard_gets_scalars_audio_and_pictures(tmp_path):
    pytest.importorskip("tensorboardX")
    pytest.importorskip("matplotlib")
    with RunLog(tmp_path, 3) as log:
        log.scalars(4, {"loss": 0.25})
        log.audio(4, "ryan", WAVE, 24000)
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"loss" in content and b"ryan" in content and b"PNG" in content and b"RIFF" in content


@pytest.mark.parametrize("step", [0, 3])
def test_tensorboard_forgets_what_a_killed_run_drew_beyond_its_checkpoint(tmp_path, step):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    with RunLog(tmp_path, step) as log:
        log.scalars(step + 1, {"loss": 0.25})
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, events = path.read_bytes(), []
    while content:
        # A record: eight bytes of its size, a checksum, an event, a checksum.
        size = int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    starts = [e.step for e in events if e.session_log.status == SessionLog.START]
    assert starts == [step + 1]


def test_a_partial_line_gives_way_to_the_whole_one(tmp_path):
    with RunLog(tmp_path, tensorboard=False) as log:
        log.scalars(4, {"loss": 1.0})
        log.scalars(6, {"loss": 2.0}, partial=True)
        log.scalars(6, {"held_out/loss": 3.0})
    assert [set(row) for row in read_metrics(tmp_path)] == [
        {"step", "time", "loss"}, {"step", "time", "loss"}, {"step", "time", "held_out/loss"},
    ]  # fmt: skip
    with RunLog(tmp_path, 6, tensorboard=False) as log:
        log.scalars(8, {"loss": 4.0})
    found = [(row["step"], row.get("loss")) for row in read_metrics(tmp_path)]
    assert found == [(4, 1), (6, None), (8, 4)]
