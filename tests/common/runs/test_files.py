"""Files are whole or not there at all."""

import errno
import os

import pytest

from reviewkd_det.common import replace_file


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(part):
        part.write_text("new")
        assert path.read_text() == "old"

    replace_file(path, write)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_where_writing_fails_the_old_file_stays(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write(part):
        part.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replace_file(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_and_then_name_are_put_on_the_disk(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")),
                                                 fsync(fd)))  # fmt: skip
    replace_file(tmp_path / "a.txt", lambda part: part.write_text("x"))
    assert synced == [str(tmp_path / "a.txt.part"), str(tmp_path)]
