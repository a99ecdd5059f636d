"""Squares of a difference of maps and of its average-pooled maps, with the gradient by hand.

Shapes: N images, C channels, H x W cells.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from reviewkd_det.core.widen import widen

__all__ = ["PooledSquares"]

# Cells of the difference of two maps whose images are taken together: 32 MB of float32.
CELLS_AT_ONCE = 2**23


class PooledSquares(torch.autograd.Function):
    """The loss by hand, without a second map of the full size.

    Average pooling is linear, so pooling the difference once is pooling both maps. Where the bins
    of two sizes nest, the smaller map is pooled from the larger one. The difference is formed a few
    images at a time and again in the backward pass, where it becomes the gradient; that pass walks
    the chain of pooled maps from the smallest one up and touches the full size once.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, pool_sizes: tuple[int, ...]) -> Tensor:
        nested: list[bool] = []
        sums, pooled = [], []
        images = max(1, CELLS_AT_ONCE // student[0].numel())
        for parts in zip(torch.split(student, images), torch.split(teacher, images), strict=True):
            squares, maps, nested = _pool_difference(*parts, pool_sizes)
            sums.append(squares)
            pooled.append(maps)
        ctx.save_for_backward(student, teacher, *map(torch.cat, zip(*pooled, strict=True)))
        ctx.nested = nested
        ctx.factors = _factors(tuple(student.shape), pool_sizes)
        totals = torch.stack(sums).sum(0)  # (scales,)
        return torch.stack([f * total for f, total in zip(ctx.factors, totals, strict=True)]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        student, teacher, *pooled = ctx.saved_tensors
        factors = [gradient * (2 * factor) for factor in ctx.factors]
        spread: list[Tensor] = []  # gradients of the maps pooled from the difference itself
        finer = None  # gradient that a map gets from the one pooled from it
        for pooled_map, factor, is_nested in reversed(
            list(zip(pooled, factors[1:], ctx.nested, strict=True))
        ):
            own = pooled_map * factor
            if finer is not None:
                cells = (own.shape[2] // finer.shape[2]) * (own.shape[3] // finer.shape[3])
                own += F.interpolate(finer / cells, size=own.shape[2:], mode="nearest")
            finer = own if is_nested else None
            if not is_nested:
                spread.append(own)
        result = _difference(student, teacher).mul_(factors[0])
        for values in spread:
            _spread_over_bins(result, values)
        return result.to(student.dtype), None, None


@torch.compiler.assume_constant_result
def _factors(shape: tuple[int, ...], pool_sizes: tuple[int, ...]) -> list[float]:
    """What the sum of squares of each scale is multiplied by; a number to a compiler."""
    weights = torch.tensor([0.5**i for i in range(len(pool_sizes) + 1)])
    cells = torch.tensor([shape[2] * shape[3], *(size * size for size in pool_sizes)])
    factors: list[float] = (weights / weights.sum() / (shape[0] * shape[1] * cells)).tolist()
    return factors


def _pool_difference(
    student: Tensor, teacher: Tensor, pool_sizes: tuple[int, ...]
) -> tuple[Tensor, list[Tensor], list[bool]]:
    """The sums of squares of the difference and its pooled maps, those maps, and which nest."""
    difference = _difference(student, teacher)
    maps = [difference]
    nested = []
    for size in pool_sizes:
        nested.append(len(maps) > 1 and _bins_nest(difference, maps[-1], size))
        maps.append(F.adaptive_avg_pool2d(maps[-1] if nested[-1] else difference, size))
    return torch.stack([_sum_of_squares(m) for m in maps]), maps[1:], nested


def _difference(student: Tensor, teacher: Tensor) -> Tensor:
    """In float32 or wider: in half precision the difference would round."""
    wide = widen(student)
    return wide - teacher if wide is student else wide.sub_(teacher)


def _bins_nest(full: Tensor, pooled: Tensor, size: int) -> bool:
    """Whether pooling an already pooled map gives what pooling the full map would."""
    k = pooled.shape[2]
    return k % size == 0 and full.shape[2] % k == 0 and full.shape[3] % k == 0


def _sum_of_squares(x: Tensor) -> Tensor:
    """As x.square().sum(), without a map of the squares."""
    channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    # Norms of rows in the order of memory: one norm of millions of cells would lose digits.
    rows = x.permute(0, 2, 3, 1) if channels_last else x
    norms: Tensor = torch.linalg.vector_norm(rows, dim=(2, 3))
    return norms.square().sum()


def _spread_over_bins(x: Tensor, pooled: Tensor) -> None:
    """Add each value of a pooled map evenly to its bin's cells, in place."""
    height, width = x.shape[2:]
    k = pooled.shape[2]
    if height % k or width % k:  # overlapping bins
        x += torch.ops.aten._adaptive_avg_pool2d_backward(pooled, x)
    else:
        cells = x.view(*x.shape[:2], k, height // k, k, width // k)
        cells += (pooled / (height // k * width // k))[:, :, :, None, :, None]
