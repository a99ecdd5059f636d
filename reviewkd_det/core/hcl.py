"""Hierarchical context loss.

Shapes: N images, C channels, H x W cells of one level.
"""

from collections.abc import Sequence

from torch import Tensor

from reviewkd_det.core.kernels.pooled_squares import PooledSquares

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
        ValueError: the shapes differ, are not 4-dimensional or hold nothing, or the teacher
            requires a gradient.
    """
    if student.dim() != 4 or student.shape != teacher.shape or student.numel() == 0:
        raise ValueError(
            "student and teacher maps must have one shape (N, C, H, W) without zeros; "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if teacher.requires_grad:
        raise ValueError(
            f"teacher map must not require a gradient; got one of shape {tuple(teacher.shape)} "
            "that does; run the teacher under torch.no_grad()"
        )
    sizes = tuple(size for size in pool_sizes if size < student.shape[2])
    loss: Tensor = PooledSquares.apply(student, teacher, sizes)
    return loss
