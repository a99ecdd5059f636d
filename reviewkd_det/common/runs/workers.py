"""Worker processes of data loaders, which a signal to the whole job does not end.

A cluster sends SIGTERM, and a terminal Ctrl-C, to every process of a job. The training answers it
after a whole step, for which it may need one more batch, and then ends its workers itself.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkContext, ForkProcess
from typing import Any

from torch.utils.data import DataLoader

from reviewkd_det.common.runs.interruption import SIGNALS, end_with_parent

__all__ = ["guard_workers"]


def guard_workers(loader: Any) -> None:
    """Let a loader start workers that obey nobody but the process that starts them.

    Args:
        loader: a `DataLoader`, or what holds one as its `dataset`, as Detectron2's loaders do. One
            without workers is left as it is, and so is any on a system that does not fork.
    """
    while not isinstance(loader, DataLoader):
        if (loader := getattr(loader, "dataset", None)) is None:
            return
    # None and forkserver are what Python starts with; spawn is somebody's choice.
    chosen = multiprocessing.get_start_method(allow_none=True)
    forks = chosen != "spawn" and "fork" in multiprocessing.get_all_start_methods()
    if loader.num_workers and loader.multiprocessing_context is None and forks:
        loader.multiprocessing_context = _GuardedContext()


class _GuardedProcess(ForkProcess):
    """Deaf to SIGTERM and Ctrl-C from its first instruction, unless its parent sends them."""

    def start(self) -> None:
        with _signals_blocked():  # which a process passes on to those that it starts
            super().start()

    def run(self) -> None:
        threading.Thread(target=_end_on_request, daemon=True).start()
        end_with_parent()
        super().run()


class _GuardedContext(ForkContext):
    Process = _GuardedProcess


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Let signals to this process wait until the block ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_on_request() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent.pid:
        pass
    os._exit(0)
