"""The textbook's parts in a process of their own, whose memory is managed as PyTorch does.

How memory is managed holds for a whole process, so the two cannot be compared within one.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import torch

from benchmarks.speed.models import build_models, synthetic_batch
from benchmarks.speed.parts import parts
from benchmarks.speed.settings import Settings, checked_config
from reviewkd_det.common import end_with_parent

__all__ = ["stock_process"]

_calls: dict[str, Callable[[], object]] = {}


@contextmanager
def stock_process(settings: Settings) -> Iterator[Callable[[str], object]]:
    """Start the process; give a function that runs a part of it, by name, and waits for it.

    Args:
        settings: what is measured; models and images are the same as in this process.
    """
    context = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, context, _build, (settings, threads)) as executor:
        yield lambda name: executor.submit(_run, name).result()


def _build(settings: Settings, threads: int) -> None:
    end_with_parent()
    torch.set_num_threads(threads)
    batch = synthetic_batch(settings.size, settings.batch)
    models = build_models(checked_config(settings), batch)
    _calls.update(parts(models, batch, settings.precision))


def _run(name: str) -> None:
    _calls[name]()
