"""The file that an array is written to is neither the recording nor named like one."""

import pytest

from qtts_jax.errors import QTTSError
from qtts_jax.io.array_target import check_array_target


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "me.raw"
    path.write_bytes(b"speech")
    return path


def test_a_target_of_its_own_is_good(recording):
    target = recording.with_suffix(".npy")
    assert check_array_target(target, str(recording)) == target
    assert check_array_target("codes.npy", b"encoded audio").name == "codes.npy"


def test_the_recording_is_never_the_target(recording):
    link, hard = recording.with_name("link.npy"), recording.with_name("hard.npy")
    link.symlink_to(recording)
    hard.hardlink_to(recording)
    for target in (recording, recording.parent / "." / recording.name, link, hard):
        with pytest.raises(QTTSError, match="is the recording to read"):
            check_array_target(target, str(recording))


@pytest.mark.parametrize("name", ["out.wav", "OUT.WAV", "a.flac", "a.m4a", "a.mp3", "a.opus"])
def test_an_audio_suffix_is_refused(name, recording):
    with pytest.raises(QTTSError, match="name it .npy"):
        check_array_target(name, recording)


def test_a_folder_is_no_target(tmp_path):
    with pytest.raises(QTTSError, match="is a folder"):
        check_array_target(tmp_path)
