"""SIGTERM and Ctrl-C as a request that a run answers between two steps; a parent that is gone."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interruption", "catch_interruption", "end_with_parent"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ECHO_SECONDS = 2.0  # a launcher often passes on what the terminal has already sent to everyone


class Interruption:
    """Whether this process was asked to stop, and by which signal; None while it was not."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._since = 0.0

    @property
    def exit_code(self) -> int:
        """What shells report for a process that the signal ended."""
        return 0 if self.signal is None else 128 + self.signal

    def request(self, number: int, frame: FrameType | None = None) -> None:
        """Note the first request; one that comes later than its echo ends the process at once."""
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._since > ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def catch_interruption() -> Iterator[Interruption]:
    """Note SIGTERM and Ctrl-C instead of dying of them, until the block ends.

    Outside the main thread, where Python cannot catch signals, nothing is ever noted.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption.request) for number in SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """End this process, which `multiprocessing` started, when its parent ends, however it does.

    One that waits for work of a parent that was killed would wait for ever.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
