"""FSP: how successive stages go together. Yim et al., CVPR 2017.

"A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning".
Shapes: a level is (N, C, H, W).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core.alignment import build_aligner, pool_to_smaller
from reviewkd_det.core.levelwise import check_positions, maps_of
from reviewkd_det.core.method import Method, Need, Side, Truth, View
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import weight_setting
from reviewkd_det.core.stage import StageSettings
from reviewkd_det.core.widen import product, widen

__all__ = ["FSP", "flow_matrix", "procedure_loss"]


def flow_matrix(first: Tensor, second: Tensor) -> Tensor:
    """Inner products of the channels of two levels over their cells, over H x W; (N, C1, C2).

    Equation 1 of the paper. The larger map is average-pooled.

    Args:
        first: a level, (N, C1, H1, W1).
        second: a level, (N, C2, H2, W2).
    """
    a, b = (maps.flatten(2) for maps in pool_to_smaller(first, second))
    return product(a, b.mT) / a.shape[2]


def procedure_loss(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Compare the matrices of two successive levels: the mean squared difference. Equation 2.

    Args:
        student: two levels of the student.
        teacher: two levels of the teacher, of as many channels.

    Returns:
        The loss, shape ().
    """
    return F.mse_loss(flow_matrix(*student), flow_matrix(*teacher))


@register("FSP")
class FSP(Method):
    """The loss of each two successive levels, summed.

    A student of other channels passes a 1x1 convolution, which the paper does not have. As
    published it initialises the student: in the first part of the training it acts alone, then the
    labels do. The loss grows with the fourth power of the features, so half precision wants small
    ones.
    """

    needs = Need.LEVELS | Need.STAGE
    ends_with_stage = True

    @dataclass(frozen=True, kw_only=True)
    class Settings(StageSettings):
        """Settings of FSP; the weight is published for CIFAR-100."""

        loss_weight: float | str = weight_setting(50.0)

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        super().__init__(settings, student, teacher)
        named = check_positions(settings.levels, len(teacher.levels))
        self.positions = named or maps_of(teacher.levels)
        if len(self.positions) < 2:
            raise ValueError(f"FSP must have two levels or more; got {len(self.positions)}")
        self.adapters = nn.ModuleList(
            build_aligner(student.levels[i], teacher.levels[i]) for i in self.positions
        )

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss, which has one part."""
        chosen = zip(self.adapters, self.positions, strict=True)
        with torch.autocast(student.levels[0].device.type, enabled=False):
            ours = pairwise([adapt(widen(student.levels[i])) for adapt, i in chosen])
        theirs = pairwise([teacher.levels[i] for i in self.positions])
        pairs = [procedure_loss(a, b) for a, b in zip(ours, theirs, strict=True)]
        return {"": torch.stack(pairs).sum()}
