"""One run at a time in a folder: a lock that the system gives back when its process ends."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["LOCK", "lock_folder"]

logger = logging.getLogger(__name__)
LOCK = "run.lock"
WAIT_SECONDS = 2.0  # in which the workers of a run that was killed notice it, and end


@contextmanager
def lock_folder(folder: str | Path, *, needed: bool = True) -> Iterator[None]:
    """Hold a run's folder until the block ends; one process of a run does so for all of them.

    The lock is the system's own, so that of a process that was killed is no hindrance; the file
    stays, and says who has it. A file system without locks, as some in a network, is warned of
    and used as it is.

    Args:
        folder: output folder of the run; made where it is absent.
        needed: whether this process locks; otherwise nothing is done.

    Raises:
        FileExistsError: another process trains there.
    """
    if not needed:
        yield
        return
    path = Path(folder, LOCK)
    lock = _acquired(path)
    try:
        yield
    finally:
        if lock is not None:
            path.write_text("", encoding="utf-8")
            lock.release()


def _acquired(path: Path) -> FileLock | None:
    """The lock of a file; None where the file system has none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=WAIT_SECONDS, poll_interval=0.1)
    except Timeout as error:
        raise FileExistsError(
            f"OUTPUT_DIR must belong to one run at a time; got '{path.parent}', where "
            f"{holder or 'another process'} trains; wait for it, or take another folder"
        ) from error
    except (OSError, NotImplementedError) as error:
        logger.warning("'%s' cannot be locked against a second run: %s", path.parent, error)
        return None
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    text = f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
    path.write_text(text, encoding="utf-8")
    return lock
