"""VID: a bound of the mutual information of both networks' maps. Ahn et al., CVPR 2019.

arXiv:1904.05835. Shapes: a level is (N, C, H, W).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core.alignment import pool_to_smaller
from reviewkd_det.core.levelwise import LevelMethod, LevelSettings
from reviewkd_det.core.method import Level, Side, Truth
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import AUTO, setting, weight_setting
from reviewkd_det.core.widen import widen

__all__ = ["VID", "information_loss"]

LEAST_VARIANCE = 1e-5


def information_loss(mean: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """Negative log likelihood of the teacher's level, apart from a constant.

    With m the predicted mean, G the teacher's level and v the variance of a channel:
    `((m - G)^2 / v + log v) / 2`, the mean over all values. Equation 5 of the paper. The larger map
    is average-pooled to the smaller.

    Args:
        mean: prediction of the teacher's level, (N, C, Hs, Ws).
        teacher: the teacher's level, (N, C, Ht, Wt).
        variance: variance of each channel, (C,), positive.

    Returns:
        The loss, shape (); negative where the prediction is good.
    """
    ours, theirs = pool_to_smaller(mean, teacher)
    spread = widen(variance)[:, None, None]
    return ((ours - theirs).square() / spread + spread.log()).mean() / 2


def build_regressor(student: Level, teacher: Level) -> nn.Sequential:
    """Make the prediction of the mean: three 1x1 convolutions without bias, ReLUs between."""
    width = teacher.channels
    return nn.Sequential(
        nn.Conv2d(student.channels, width, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(width, width, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(width, width, 1, bias=False),
    )


@register("VID")
class VID(LevelMethod):
    """The likelihood of the teacher's maps, summed over the levels; see `information_loss`.

    A regressor predicts them of the student's; each channel's variance is trained with it.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings(LevelSettings):
        """Settings of VID; weight and variance are published for CIFAR-100."""

        loss_weight: float | str = weight_setting(1.0, detection=AUTO)
        initial_variance: float = setting(
            5.0, "Variance of each channel at the start.", above=LEAST_VARIANCE
        )

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        super().__init__(settings, student, teacher)
        start = math.log(math.expm1(settings.initial_variance - LEAST_VARIANCE))  # of softplus
        self.softened = nn.ParameterList(
            torch.full((teacher.levels[position].channels,), start) for position in self.positions
        )

    def build_adapter(self, student: Level, teacher: Level) -> nn.Module:
        """Make the regressor of a level."""
        return build_regressor(student, teacher)

    def compare_at(self, index: int, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the loss of a level by its variances."""
        variance = F.softplus(widen(self.softened[index])) + LEAST_VARIANCE
        return information_loss(student, teacher, variance)
