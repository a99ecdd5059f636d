"""How much two levels say the same, whatever their channels: linear CKA.

Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, section 3.
"""

import torch
from torch import Tensor

from reviewkd_det.core.alignment import match_size
from reviewkd_det.core.widen import widen

__all__ = ["linear_cka"]


@torch.no_grad()
def linear_cka(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare two levels cell by cell, each cell an example and its channels the features.

    With X and Y the centred levels, (cells, channels), it is the squared Frobenius norm of Y^T X
    over the product of those of X^T X and Y^T Y: 1 where one is a rotation and scaling of the
    other, 0 where no channel of one tells of one of the other. No gradient flows.

    Args:
        student: the student's level, (N, C, Hs, Ws), resized bilinearly to the teacher's.
        teacher: the teacher's level, (N, D, Ht, Wt).

    Returns:
        The similarity in [0, 1], shape (); NaN where a level is constant.
    """
    x, y = (_cells(level) for level in (match_size(widen(student), teacher), widen(teacher)))
    shared = (y.T @ x).square().sum()
    return shared / ((x.T @ x).square().sum() * (y.T @ y).square().sum()).sqrt()


def _cells(level: Tensor) -> Tensor:
    """The cells of a level, (N * H * W, C), each channel without its mean."""
    cells = level.movedim(1, -1).flatten(0, 2)
    return cells - cells.mean(0)
