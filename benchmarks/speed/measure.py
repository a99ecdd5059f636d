"""Time taken and memory allocated, measured in one process, on the CPU as on a GPU."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler import profile
from torch.utils.benchmark import Measurement, Timer

__all__ = ["MEGABYTE", "extra_memory", "interleaved", "resident_memory"]

MEGABYTE = 2**20
TURN = 0.05  # least seconds of a part's turn: one call, or several of what is shorter
Part = Callable[[], object]


def interleaved(parts: Mapping[str, Part], repeats: int) -> dict[str, Measurement]:
    """Time some parts in turns, so that a slow moment of the machine meets all of them.

    Each repeat gives every part a turn, which a call begins that is not counted; each repeat
    begins with another part.

    Args:
        parts: functions to time, by name.
        repeats: number of turns of each.

    Returns:
        Every counted call of each part.
    """
    threads = torch.get_num_threads()
    timers = {
        name: Timer("part()", globals={"part": part}, num_threads=threads, description=name)
        for name, part in parts.items()
    }
    measured: dict[str, list[Measurement]] = {name: [] for name in parts}
    names = list(parts)
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            measured[name].append(timers[name].blocked_autorange(min_run_time=TURN))
    return {name: next(iter(Measurement.merge(turns))) for name, turns in measured.items()}


def extra_memory(part: Part, device: str | torch.device = "cpu") -> float:
    """The most memory that a call holds on top of what was allocated before it, in MB of 2**20.

    On a GPU `torch.cuda.max_memory_allocated` counts it. On the CPU PyTorch's profiler records each
    block that PyTorch's allocator hands out or takes back, oneDNN's buffers among them, and the
    largest running sum counts. Both count what tensors need: not the libraries' own memory, nor
    what an allocator keeps for later. Freeing what was allocated before the call does not count.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        part()
        torch.cuda.synchronize(device)
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
