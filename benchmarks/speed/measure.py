"""Time taken and memory allocated, measured in one process, on the CPU as on a GPU."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.profiler import profile

__all__ = ["MEGABYTE", "Seconds", "extra_memory", "interleaved", "resident_memory"]

MEGABYTE = 2**20
Part = Callable[[], object]


class Seconds(NamedTuple):
    """What the repeats of one part took."""

    median: float
    least: float
    most: float


def interleaved(
    parts: Mapping[str, Part], repeats: int, device: str | torch.device = "cpu"
) -> dict[str, Seconds]:
    """Time some parts in turns, so that a slow moment of the machine meets all of them.

    After a round that is not counted, each repeat calls every part once; each begins with another.

    Args:
        parts: what is timed, by name.
        repeats: calls of each that count.
        device: where they run; on a GPU each is waited for.
    """
    names = list(parts)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        _timed(parts[name], device)
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            seconds[name].append(_timed(parts[name], device))
    return {name: Seconds(median(x), min(x), max(x)) for name, x in seconds.items()}


def _timed(part: Part, device: str | torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    part()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str | torch.device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def extra_memory(part: Part, device: str | torch.device = "cpu") -> float:
    """The most memory that a call holds on top of what was allocated before it, in MB of 2**20.

    On a GPU `torch.cuda.max_memory_allocated` counts it. On the CPU PyTorch's profiler records each
    block that PyTorch's allocator hands out or takes back, oneDNN's buffers among them, and the
    largest running sum counts. Both count what tensors need: not the libraries' own memory, nor
    what an allocator keeps for later. Freeing what was allocated before the call does not count.
    """
    if torch.device(device).type == "cuda":
        _wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        part()
        _wait(device)
        return (torch.cuda.max_memory_allocated(device) - before) / MEGABYTE
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it looks for a GPU and says there is none
    with profile(profile_memory=True) as recorded:
        part()
    results: Any = recorded.kineto_results
    changes = [
        (event.start_ns(), event.nbytes())
        for event in results.events()
        if event.name() == "[memory]"
    ]
    held = most = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        held += size
        most = max(most, held)
    return most / MEGABYTE


def resident_memory(
    modules: Iterable[nn.Module], optimizer: torch.optim.Optimizer | None = None
) -> float:
    """What parameters, buffers and an optimiser's state take between two steps, in MB of 2**20."""
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    if optimizer is not None:
        states = [value for state in optimizer.state.values() for value in state.values()]
        tensors += [value for value in states if isinstance(value, torch.Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values()) / MEGABYTE
