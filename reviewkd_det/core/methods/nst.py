"""NST: what channels look like, as distributions of maps. Huang and Wang, 2017, arXiv:1707.01219.

The polynomial kernel of degree 2, without its constant. Shapes: a level is (N, C, H, W).
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core.alignment import pool_to_smaller
from reviewkd_det.core.levelwise import LevelSettings, LevelwiseMethod
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import AUTO, weight_setting
from reviewkd_det.core.widen import product

__all__ = ["NST", "selectivity_loss"]


def selectivity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare two levels by the maximum mean discrepancy of their channels' maps.

    Each channel's map is flattened and divided by its norm; with the kernel k(a, b) = (a . b)^2,
    the loss is the mean of k over pairs of the teacher's maps, plus that over pairs of the
    student's, minus twice that over pairs of both; the mean over images. Equations 3 and 6 of the
    paper. Channels may differ, their order and scale change nothing; the larger map is
    average-pooled.

    Args:
        student: the student's level, (N, Cs, Hs, Ws).
        teacher: the teacher's level, (N, Ct, Ht, Wt).

    Returns:
        The loss, shape ().
    """
    ours, theirs = (
        F.normalize(maps.flatten(2), dim=2) for maps in pool_to_smaller(student, teacher)
    )  # (N, C, H * W)
    return _kernel_mean(theirs, theirs) + _kernel_mean(ours, ours) - 2 * _kernel_mean(ours, theirs)


def _kernel_mean(first: Tensor, second: Tensor) -> Tensor:
    return product(first, second.mT).square().mean()


@register("NST")
class NST(LevelwiseMethod):
    """The discrepancy of the channels' maps, summed over the levels; see `selectivity_loss`."""

    @dataclass(frozen=True, kw_only=True)
    class Settings(LevelSettings):
        """Settings of NST; the weight is published for CIFAR-100."""

        loss_weight: float | str = weight_setting(50.0, detection=AUTO)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the discrepancy of a level."""
        return selectivity_loss(student, teacher)
