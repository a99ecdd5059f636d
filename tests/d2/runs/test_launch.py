"""Signals go on to the processes of a run, and to no worker of a loader."""

import multiprocessing
import os
import signal
import time

import pytest

from reviewkd_det.d2.runs.launch import pass_to_children


@pytest.fixture
def heard():
    """Signals that this process has answered itself."""
    numbers = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def _sleep():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(20)


@pytest.mark.parametrize("daemon", [False, True], ids=["process of the run", "worker of a loader"])
def test_a_signal_is_passed_to_processes_of_the_run_alone(heard, daemon):
    context = multiprocessing.get_context("fork")
    with pass_to_children():
        child = context.Process(target=_sleep, daemon=daemon)
        child.start()
        time.sleep(0.3)  # until the child is in its sleep
        os.kill(os.getpid(), signal.SIGTERM)
        child.join(0 if daemon else 10)
        assert child.is_alive() is daemon
        child.kill()
        child.join()
    assert heard == ([signal.SIGTERM] if daemon else [])
