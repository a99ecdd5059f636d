"""AB: on which side of its activation's boundary each value is. Heo et al., AAAI 2019.

arXiv:1811.03233. Shapes: a level is (N, C, H, W), before its activation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core.alignment import pool_to_smaller
from reviewkd_det.core.levelwise import LevelMethod, maps_of
from reviewkd_det.core.method import Level, Need, Truth
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import weight_setting
from reviewkd_det.core.stage import StageSettings

__all__ = ["AB", "boundary_loss"]

MARGIN = 1.0


def boundary_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Push the student's values to the teacher's side of 0, beyond a margin of 1.

    With u the student's and v the teacher's level: `(u + 1)^2` where v is not positive and u above
    -1, `(u - 1)^2` where v is positive and u at most 1; the sum over channels and cells, the mean
    over images. Equation 4 of the paper. The larger map is average-pooled.

    Args:
        student: the student's level, (N, C, Hs, Ws).
        teacher: the teacher's level, (N, C, Ht, Wt).

    Returns:
        The loss, shape ().
    """
    ours, theirs = pool_to_smaller(student, teacher)
    side = (theirs > 0).to(ours) * 2 - 1  # 1 or -1
    return F.relu(MARGIN - side * ours).square().sum() / len(ours)


@register("AB")
class AB(LevelMethod):
    """The boundary loss, summed over the levels, each twice as much as the one before.

    The student's level passes a 1x1 convolution and a batch norm. As published it initialises the
    student: in the first part of the training it acts alone, and then the labels do.
    """

    needs = Need.LEVELS | Need.STAGE
    activation = "before"
    ends_with_stage = True

    @dataclass(frozen=True, kw_only=True)
    class Settings(StageSettings):
        """Settings of AB; the weight is published for CIFAR-100."""

        loss_weight: float | str = weight_setting(3e-3)

    def build_adapter(self, student: Level, teacher: Level) -> nn.Module:
        """Make the connector of a level."""
        convolution = nn.Conv2d(student.channels, teacher.channels, 1)
        return nn.Sequential(convolution, nn.BatchNorm2d(teacher.channels))

    def choose_levels(self, levels: Sequence[Level]) -> tuple[int, ...]:
        """Choose the levels that are maps of several cells."""
        return maps_of(levels)

    def compare_at(self, index: int, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the boundary loss of a level, by its place."""
        return 0.5 ** (len(self.positions) - index - 1) * boundary_loss(student, teacher)
