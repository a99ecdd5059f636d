"""Stopping a run on a signal: all its processes after the same step."""

import signal
from typing import Any

import torch
from torch import distributed

from reviewkd_det.common.runs.interruption import Interruption

__all__ = ["StopRequest"]


class StopRequest:
    """Ask at the same steps in all processes whether any of them was told to stop.

    Args:
        interruption: signals to this process.
    """

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption
        started = distributed.is_available() and distributed.is_initialized()
        several = started and distributed.get_world_size() > 1
        # Through memory of the host: it does not wait for the steps that a GPU has still to do.
        self._group: Any = distributed.new_group(backend="gloo") if several else None

    def signal(self) -> signal.Signals | None:
        """The signal, the same in all processes; None where there was none."""
        number = int(self.interruption.signal or 0)
        if self._group is not None:
            highest = torch.tensor(number)
            distributed.all_reduce(highest, distributed.ReduceOp.MAX, group=self._group)
            # Only what was shared counts: a signal that came meanwhile is heard at the next step.
            number = int(highest)
        if number and self.interruption.signal is None:
            self.interruption.request(number)
        return signal.Signals(number) if number else None
