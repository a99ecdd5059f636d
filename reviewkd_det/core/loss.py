"""Hierarchical context loss.

Shapes: N images, C channels, H x W cells of one level.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["hierarchical_context_loss"]


def hierarchical_context_loss(
    student: Tensor, teacher: Tensor, pool_sizes: Sequence[int] = (4, 2, 1)
) -> Tensor:
    """Compare one level of the student with the teacher's at several scales.

    The mean squared error of the full maps has weight 1. Each pool size k in turn, unless k >= H,
    halves the weight and adds the mean squared error of both maps average-pooled to (k, k). The
    sum is divided by the sum of the weights used, so maps that differ by a constant d give d^2.
    The loss is computed in float32 or wider, whatever the inputs. "HCL" in Chen et al., CVPR 2021,
    section 3.4.

    Args:
        student: the student's map, (N, C, H, W).
        teacher: the teacher's map, (N, C, H, W); it takes no gradient.
        pool_sizes: sides of the pooled maps in cells, walked in this order.

    Returns:
        The loss, shape (); it can be differentiated once.

    Raises:
        ValueError: the shapes differ or are not 4-dimensional, or the teacher requires a gradient.
    """
    if student.dim() != 4 or student.shape != teacher.shape:
        raise ValueError(
            "student and teacher maps must have one shape (N, C, H, W); "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if teacher.requires_grad:
        raise ValueError(
            f"teacher map must not require a gradient; got one of shape {tuple(teacher.shape)} "
            "that does; run the teacher under torch.no_grad()"
        )
    sizes = tuple(size for size in pool_sizes if size < student.shape[2])
    loss: Tensor = _PooledSquares.apply(student, teacher, sizes)  # type: ignore[no-untyped-call]
    return loss


class _PooledSquares(torch.autograd.Function):
    """The loss by hand: one difference, which is all that the backward pass keeps at full size.

    Average pooling is linear, so pooling the difference once is pooling both maps. Where the bins
    of two sizes nest, the smaller map is pooled from the larger one. The backward pass walks that
    chain from the smallest map up and touches the full size once.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, pool_sizes: tuple[int, ...]) -> Tensor:
        dtype = torch.promote_types(student.dtype, torch.float32)
        if student.dtype == dtype:
            difference = student - teacher
        else:
            difference = student.to(dtype).sub_(
                teacher
            )  # one copy; in half precision it would round
        maps, weights, nested = [difference], [1.0], []
        for size in pool_sizes:
            nested.append(len(maps) > 1 and _bins_nest(difference, maps[-1], size))
            source = maps[-1] if nested[-1] else difference
            maps.append(F.adaptive_avg_pool2d(source, size))
            weights.append(weights[-1] / 2)
        total = sum(weights)
        ctx.save_for_backward(*maps)
        ctx.student_dtype, ctx.nested = student.dtype, nested
        ctx.factors = [2 * w / total / m.numel() for w, m in zip(weights, maps, strict=True)]
        terms = [w / total * _mean_square(m) for w, m in zip(weights, maps, strict=True)]
        return torch.stack(terms).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        difference, *pooled = ctx.saved_tensors
        factors = [gradient * factor for factor in ctx.factors]
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
        result = _scale_and_spread(difference, factors[0], spread)
        return result.to(ctx.student_dtype), None, None


def _bins_nest(full: Tensor, pooled: Tensor, size: int) -> bool:
    """Whether pooling an already pooled map gives what pooling the full map would."""
    k = pooled.shape[2]
    return k % size == 0 and full.shape[2] % k == 0 and full.shape[3] % k == 0


def _mean_square(x: Tensor) -> Tensor:
    """As x.square().mean(), without a map of the squares."""
    channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    # Norms of rows in the order of memory: one norm of millions of cells would lose digits.
    rows = x.permute(0, 2, 3, 1) if channels_last else x
    return torch.linalg.vector_norm(rows, dim=(2, 3)).square().sum() / x.numel()


def _scale_and_spread(x: Tensor, factor: Tensor, pooled: Sequence[Tensor]) -> Tensor:
    """x * factor plus, for each pooled map, its values spread evenly over its bins' cells."""
    result = x * factor
    height, width = x.shape[2:]
    for values in pooled:
        k = values.shape[2]
        if height % k or width % k:  # overlapping bins
            result += torch.ops.aten._adaptive_avg_pool2d_backward(values, x)
        else:
            cells = result.unflatten(3, (k, -1)).unflatten(2, (k, -1))
            cells += (values / (height // k * width // k))[:, :, :, None, :, None]
    return result
