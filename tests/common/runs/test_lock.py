"""One run at a time in a folder."""

import logging
import os

import pytest

from reviewkd_det.common.runs import lock
from reviewkd_det.common.runs.lock import LOCK, lock_folder


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.0)


def test_a_second_run_is_refused_until_the_first_ends(tmp_path):
    folder = tmp_path / "new" / "run"
    with lock_folder(folder):
        words = rf"one run at a time; got '.*run', where process {os.getpid()} on .* trains"
        for _ in range(2):  # and the refusal forgets nothing
            with pytest.raises(FileExistsError, match=words), lock_folder(folder):
                raise AssertionError
        with lock_folder(folder, needed=False):
            pass  # another process of the same run
        with lock_folder(folder / "evaluation"):
            pass
    with lock_folder(folder):
        pass
    assert (folder / LOCK).is_file()


def test_a_process_that_died_leaves_no_lock(tmp_path):
    if not (child := os.fork()):
        held = lock_folder(tmp_path)
        held.__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    assert f"process {child} " in (tmp_path / LOCK).read_text()
    with lock_folder(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / LOCK).read_text()


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def acquire(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.FileLock, "acquire", acquire)
    with caplog.at_level(logging.WARNING), lock_folder(tmp_path):
        assert "cannot be locked against a second run: [Errno 37]" in caplog.text
