"""OFD: maps before the activation, where they matter. Heo et al., ICCV 2019, arXiv:1904.01866.

"A Comprehensive Overhaul of Feature Distillation". Shapes: a level is (N, C, H, W).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reviewkd_det.core.alignment import pool_to_smaller
from reviewkd_det.core.levelwise import LevelMethod, LevelSettings, maps_of
from reviewkd_det.core.method import Level, Need, Side, Truth
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import weight_setting
from reviewkd_det.core.widen import widen

__all__ = ["OFD", "find_margins", "partial_loss"]

LEAST_PROBABILITY = 0.001  # of a negative value; below it the margin is that many deviations:
FAR = -3.0


def find_margins(deviations: Sequence[float], means: Sequence[float]) -> Tensor:
    """Expected negative value of each channel, given that a batch norm made it. Equation 4.

    Args:
        deviations: deviation of each channel, the batch norm's weight; its sign does not matter.
        means: mean of each channel, the batch norm's bias.

    Returns:
        The margins, negative, (C,).
    """
    return torch.tensor([_margin(abs(s), m) for s, m in zip(deviations, means, strict=True)])


def _margin(deviation: float, mean: float) -> float:
    if deviation == 0:
        return min(mean, 0.0)
    below = math.erfc(mean / deviation / math.sqrt(2)) / 2  # probability of a negative value
    if below <= LEAST_PROBABILITY:
        return FAR * deviation
    density = math.exp(-((mean / deviation) ** 2) / 2) / math.sqrt(2 * math.pi)
    return mean - deviation * density / below


def partial_loss(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Compare two levels before their activation, where one of them is active.

    With G the teacher's level, not below the margin, and F the student's: `(F - G)^2`, 0 where F is
    below G and G is not positive; the sum over channels and cells, the mean over images. Equations
    3 and 5 of the paper. The larger map is average-pooled.

    Args:
        student: the student's level, (N, C, Hs, Ws).
        teacher: the teacher's level, (N, C, Ht, Wt).
        margin: margin of each channel, (C,).

    Returns:
        The loss, shape ().
    """
    ours, theirs = pool_to_smaller(student, teacher)
    wanted = torch.maximum(theirs, margin.to(theirs)[:, None, None])
    counts = (ours > wanted) | (wanted > 0)
    return ((ours - wanted).square() * counts).sum() / len(ours)


@register("OFD")
class OFD(LevelMethod):
    """The partial squared error, summed over the levels, each twice as much as the one before.

    The student's level passes a 1x1 convolution and a batch norm.
    """

    needs = Need.LEVELS | Need.NORMS
    activation = "before"

    @dataclass(frozen=True, kw_only=True)
    class Settings(LevelSettings):
        """Settings of OFD; the weight is published for CIFAR-100, that of ImageNet is 1e-4."""

        loss_weight: float | str = weight_setting(1e-3)

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        super().__init__(settings, student, teacher)
        for index, position in enumerate(self.positions):
            level = teacher.levels[position]
            if level.norm is None:
                raise ValueError(
                    f"OFD must have a batch norm before each of the teacher's levels; got none "
                    f"before '{level.name}'"
                )
            self.register_buffer(f"margin_{index}", find_margins(*level.norm))

    def build_adapter(self, student: Level, teacher: Level) -> nn.Module:
        """Make the connector of a level."""
        convolution = nn.Conv2d(student.channels, teacher.channels, 1, bias=False)
        nn.init.normal_(convolution.weight, 0, math.sqrt(2 / teacher.channels))
        return nn.Sequential(convolution, nn.BatchNorm2d(teacher.channels))

    def choose_levels(self, levels: Sequence[Level]) -> tuple[int, ...]:
        """Choose the levels that are maps of several cells."""
        return maps_of(levels)

    def compare_at(self, index: int, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the partial squared error of a level, by its margins and its place."""
        margin = getattr(self, f"margin_{index}")
        factor = 0.5 ** (len(self.positions) - index - 1)
        return factor * partial_loss(widen(student), teacher, margin)
