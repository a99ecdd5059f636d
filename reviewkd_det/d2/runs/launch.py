"""One run in several processes, on GPUs or on the CPU."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.engine import create_ddp_model
from torch import nn
from torch.multiprocessing import ProcessExitedException
from torch.nn.parallel import DistributedDataParallel

__all__ = ["data_parallel", "pass_to_children", "unwrapped"]


def data_parallel(model: nn.Module, **options: Any) -> nn.Module:
    """Wrap a model as Detectron2 does, where there are several processes, and on a CPU as well.

    Args:
        model: module on its device.
        options: options of `DistributedDataParallel`.
    """
    if next(model.parameters()).device.type == "cpu":
        options["device_ids"] = None
    return create_ddp_model(model, **{"broadcast_buffers": False, **options})


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextmanager
def pass_to_children() -> Iterator[None]:
    """Pass SIGTERM and Ctrl-C on to the processes that the block starts, and exit as they do.

    Where it starts none, a signal acts as ever.
    """

    def pass_on(number: int, _: Any) -> None:
        number = signal.Signals(number)
        # The workers of a data loader, daemons, end with the process that they work for.
        children = [x for x in multiprocessing.active_children() if not x.daemon]
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, number)
        if not children:
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)

    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, pass_on)
    try:
        yield
    except ProcessExitedException as error:
        if error.exit_code in {128 + number for number in before}:
            sys.exit(error.exit_code)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
