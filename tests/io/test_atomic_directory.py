"""A directory appears complete or not at all."""

import errno
import os

import pytest

from qtts_jax.errors import CheckpointError
from qtts_jax.io.atomic_directory import new_directory, require_space
from qtts_jax.io.config_file import MARKER


def write(directory, text):
    with new_directory(directory, overwrite=True) as partial:
        (partial / "file").write_text(text)
        (partial / MARKER).touch()


def test_directory_appears_with_its_parents(tmp_path):
    write(tmp_path / "a" / "b", "new")
    assert (tmp_path / "a" / "b" / "file").read_text() == "new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_existing_directory_is_refused(tmp_path):
    write(tmp_path / "x", "old")
    with (
        pytest.raises(CheckpointError, match="already exists"),
        new_directory(tmp_path / "x", overwrite=False),
    ):
        pytest.fail("the block must not run")
    assert (tmp_path / "x" / "file").read_text() == "old"


def test_overwrite_replaces_what_this_package_made_and_empty_folders(tmp_path):
    write(tmp_path / "x", "old")
    write(tmp_path / "x", "new")
    (tmp_path / "y").mkdir()
    write(tmp_path / "y", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]
    assert {path.read_text() for path in tmp_path.glob("*/file")} == {"new"}


def test_overwrite_leaves_folders_and_files_of_others_alone(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("x")
    (tmp_path / "notes").write_text("a file")
    with pytest.raises(CheckpointError, match=r"was not made by this package \(it has no qtts_jax"):
        write(tmp_path / "precious", "new")
    with pytest.raises(CheckpointError, match="notes is a file"):
        write(tmp_path / "notes", "new")
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "x"
    assert (tmp_path / "notes").read_text() == "a file"


@pytest.mark.parametrize("earlier", [True, False])
def test_a_link_is_written_through(tmp_path, earlier):
    (tmp_path / "big_disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "big_disk" / "x")
    if earlier:
        write(tmp_path / "big_disk" / "x", "old")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "big_disk" / "x" / "file").read_text() == "new"


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError, ValueError("bad"), SystemExit])
def test_failure_leaves_the_old_directory_and_no_part_of_the_new(tmp_path, fault):
    write(tmp_path / "x", "old")

    def write_half():
        with new_directory(tmp_path / "x", overwrite=True) as partial:
            (partial / "file").write_text("half")
            partial.with_name(partial.name + ".other-tmp").mkdir()
            raise fault

    with pytest.raises(fault if isinstance(fault, type) else ValueError):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x" / "file").read_text() == "old"


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device"),
    ],
)
def test_full_disk_is_one_clear_error(tmp_path, fault):
    with (
        pytest.raises(CheckpointError, match="disk of the destination is full"),
        new_directory(tmp_path / "x", overwrite=False),
    ):
        raise fault
    assert list(tmp_path.iterdir()) == []


def test_space_is_required_before_writing(tmp_path):
    require_space(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"1000000000000\.0 MB are needed"):
        require_space(tmp_path, 10**18)


def test_failed_rename_restores_the_old_directory(tmp_path, monkeypatch):
    write(tmp_path / "x", "old")
    rename = os.replace

    def fail_once(source, destination):
        if "partial" in str(source):
            raise PermissionError(errno.EPERM, "no")
        rename(source, destination)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(tmp_path / "x", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x" / "file").read_text() == "old"


def test_parent_that_is_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(tmp_path / "file" / "x", "new")


def test_leftover_of_a_killed_process_is_replaced(tmp_path):
    leftover = tmp_path / f"x.partial-{os.getpid()}"
    leftover.mkdir()
    (leftover / "stale").touch()
    write(tmp_path / "x", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["file", MARKER]


@pytest.mark.parametrize("destination", ["a", "a/source", "a/link"])
def test_a_destination_that_would_delete_what_is_read_is_refused(tmp_path, destination):
    write(tmp_path / "a" / "source", "old")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "source")
    source = tmp_path / "a" / "source"
    with (
        pytest.raises(CheckpointError, match=r"is or holds .*source, which is read"),
        new_directory(tmp_path / destination, overwrite=True, sources=[source]),
    ):
        pytest.fail("the block must not run")
    assert (source / "file").read_text() == "old"
    with (
        pytest.raises(CheckpointError, match=r"inside lies in .*source, which is read"),
        new_directory(source / "inside", overwrite=True, sources=[source]),
    ):
        pytest.fail("the block must not run")
