"""PKD: channels compared by their correlation. Cao et al., NeurIPS 2022, arXiv:2207.02039.

Shapes: a level is (N, C, H, W).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core.alignment import build_aligner, match_size
from reviewkd_det.core.levelwise import LevelSettings, LevelwiseMethod
from reviewkd_det.core.method import Level
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import AUTO, setting, weight_setting
from reviewkd_det.core.widen import widen

__all__ = ["PKD", "correlation_loss"]

EPSILON = 1e-6  # added to the standard deviations
FINEST = 4  # levels that are compared unless others are named, as published


def correlation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare two levels channel by channel, whatever the channels' scales and offsets.

    Each channel is normalised over images and cells by its mean and its unbiased standard
    deviation; the loss is half the mean squared difference. With r the Pearson correlation of a
    channel's n = N * H * W values, that is (n - 1) / n * (1 - mean r). Section 3.2 of the paper.

    Args:
        student: the student's level, (N, C, Hs, Ws), resized bilinearly to the teacher's.
        teacher: the teacher's level, (N, C, Ht, Wt).

    Returns:
        The loss, shape ().
    """
    ours, theirs = _standardize(match_size(widen(student), teacher)), _standardize(widen(teacher))
    return F.mse_loss(ours, theirs) / 2


def _standardize(maps: Tensor) -> Tensor:
    # A single value has no deviation; its difference from the mean is 0.
    correction = int(maps.numel() > maps.shape[1])
    std, mean = torch.std_mean(maps, dim=(0, 2, 3), correction=correction, keepdim=True)
    return (maps - mean) / (std + EPSILON)


@register("PKD")
class PKD(LevelwiseMethod):
    """The correlation loss, summed over the levels; see `correlation_loss`.

    A student of other channels learns through a 1x1 convolution, which the paper does not have.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings(LevelSettings):
        """Settings of PKD; the weights are published for COCO."""

        loss_weight: float | str = weight_setting(6.0, detection=AUTO)
        levels: tuple[int, ...] = setting(
            (),
            f"Positions of the levels compared, 0 being the finest; () takes the {FINEST} finest.",
            least=0,
        )

    def choose_levels(self, levels: Sequence[Level]) -> tuple[int, ...]:
        """Choose the finest levels."""
        return tuple(range(min(FINEST, len(levels))))

    def build_adapter(self, student: Level, teacher: Level) -> nn.Module:
        """Make a 1x1 convolution where the channels differ."""
        return build_aligner(student, teacher)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the correlation loss of a level."""
        return correlation_loss(student, teacher)
