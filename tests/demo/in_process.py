"""The demos' trainings in this process, where one start is enough for all."""

import runpy
import sys
from contextlib import contextmanager
from unittest import mock

from accelerate.state import AcceleratorState

from reviewkd_det.demo.trainings import Trainings
from tests.d2.test_scripts import close_logs


def _run(self, name, command):
    AcceleratorState._reset_state(True)
    with mock.patch.object(sys, "argv", command[1:]):
        runpy.run_path(command[1], run_name="__main__")
    close_logs()


@contextmanager
def trained_here():
    """Inside the block, each training of a demo is a call of its script's main function."""
    with mock.patch.object(Trainings, "_run", _run):
        yield
