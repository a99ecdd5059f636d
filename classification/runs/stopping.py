"""Stopping a run on a signal: all its processes after the same step, with a way to go on."""

import os
import shlex
import signal
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import distributed

from reviewkd_det.common import Interruption

__all__ = ["StopRequest", "resume_command"]


class StopRequest:
    """Ask at the same steps in all processes whether any of them was told to stop.

    Args:
        interruption: of this process.
        accelerator: of this process.
    """

    def __init__(self, interruption: Interruption, accelerator: Accelerator) -> None:
        self.interruption = interruption
        # Through memory of the host: it does not wait for the steps that a GPU has still to do.
        several = accelerator.num_processes > 1
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


def resume_command(arguments: Sequence[str], processes: int) -> str:
    """The command that goes on with a run.

    Args:
        arguments: `sys.argv` of the run.
        processes: of the run.
    """
    script, *rest = arguments
    # As argparse reads them: any beginning of a name is that name.
    starts = ("--resume", "--overwrite")
    kept = [arg for arg in rest if len(arg) < 3 or not any(s.startswith(arg) for s in starts)]
    command = shlex.join([script, "--resume", *kept])
    if processes == 1:
        return f"python {command}"
    if os.environ.get("LOCAL_WORLD_SIZE") == str(processes):
        return f"torchrun --nproc_per_node {processes} {command}"
    return f"(the launcher of its {processes} processes) {command}"
