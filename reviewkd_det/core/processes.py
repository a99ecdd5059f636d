"""What several processes of a training know together."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

__all__ = ["gather_rows", "sum_over_processes"]


def sum_over_processes(values: Sequence[float]) -> list[float]:
    """The sum of each number over all processes, the same in each."""
    if not _are_several():
        return list(values)
    total = torch.tensor(values, dtype=torch.float64)
    if distributed.get_backend() == "nccl":
        total = total.cuda()
    distributed.all_reduce(total)
    found: list[float] = total.tolist()
    return found


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, as many of each, in the order of their ranks; without gradient."""
    if not _are_several():
        return rows
    parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
