"""Hierarchical context loss.

Shapes: N images, C channels, H x W cells of one level.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
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
        The loss, shape ().

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
    dtype = torch.promote_types(student.dtype, torch.float32)
    # Average pooling is linear: pooling the difference once is pooling both maps.
    difference = student.to(dtype) - teacher.to(dtype)
    loss = difference.square().mean()
    weight = total_weight = 1.0
    for size in pool_sizes:
        if size >= student.shape[2]:
            continue
        weight /= 2
        total_weight += weight
        loss = loss + weight * F.adaptive_avg_pool2d(difference, size).square().mean()
    return loss / total_weight
