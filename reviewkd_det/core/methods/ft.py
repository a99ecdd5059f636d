"""FT: factors, the teacher's maps paraphrased. Kim et al., NeurIPS 2018, arXiv:1802.04977.

In the form of Tian et al., ICLR 2020, whose factors are compared by their energy over the channels.
Shapes: a level is (N, C, H, W); a factor is (N, k, H, W).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.alignment import pool_to_smaller
from reviewkd_det.core.levelwise import maps_of
from reviewkd_det.core.method import Method, Need, Side, Truth, View
from reviewkd_det.core.methods.at import attention_map
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import SettingError, setting, weight_setting
from reviewkd_det.core.stage import stage_setting
from reviewkd_det.core.widen import widen

__all__ = ["FT", "Paraphraser", "factor_loss"]

SLOPE = 0.1  # of the leaky ReLUs


def factor_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare two factors by where their energy is.

    With a(F) the mean over the channels of F squared, flattened and divided by its norm:
    `mean |a(student) - a(teacher)|` over images and cells. The paper, in equation 3, flattens the
    factors themselves. The larger one is average-pooled.

    Args:
        student: the student's factor, (N, k, Hs, Ws).
        teacher: the teacher's factor, (N, k, Ht, Wt).

    Returns:
        The loss, shape ().
    """
    ours, theirs = map(attention_map, pool_to_smaller(student, teacher))
    return F.l1_loss(ours, theirs)


def build_encoder(channels: int, factors: int) -> nn.Sequential:
    """Make three convolutions from a level to its factor, with batch norms and leaky ReLUs."""
    return nn.Sequential(
        *_layer(nn.Conv2d(channels, channels, 3, padding=1)),
        *_layer(nn.Conv2d(channels, factors, 3, padding=1)),
        *_layer(nn.Conv2d(factors, factors, 3, padding=1)),
    )


class Paraphraser(nn.Module):
    """An autoencoder of the teacher's level, trained before the student. Section 3.1 of the paper.

    Args:
        channels: C of the level.
        factors: k, channels of the factor.
    """

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encode = build_encoder(channels, factors)
        self.decode = nn.Sequential(
            *_layer(nn.ConvTranspose2d(factors, factors, 3, padding=1)),
            *_layer(nn.ConvTranspose2d(factors, channels, 3, padding=1)),
            *_layer(nn.ConvTranspose2d(channels, channels, 3, padding=1)),
        )

    def forward(self, level: Tensor) -> Tensor:
        """Reconstruct a level by its factor, (N, C, H, W)."""
        restored: Tensor = self.decode(self.encode(level))
        return restored

    @torch.no_grad()
    def encode_fixed(self, level: Tensor) -> Tensor:
        """The factor of a level, by the statistics of the stage and without gradient."""
        x = level
        for layer in self.encode:
            if isinstance(layer, nn.BatchNorm2d):
                known = layer.running_mean, layer.running_var, layer.weight, layer.bias
                x = F.batch_norm(x, *known, eps=layer.eps)
            else:
                x = layer(x)
        return x


def _layer(convolution: nn.Module) -> list[nn.Module]:
    channels: Any = convolution.out_channels
    return [convolution, nn.BatchNorm2d(channels), nn.LeakyReLU(SLOPE)]


@register("FT")
class FT(Method):
    """Factors of one level of both sides.

    In the first part of the training only the paraphraser learns, by the mean squared error of what
    it reconstructs; from then on it is fixed, and the student learns.
    """

    needs = Need.LEVELS | Need.STAGE
    teaches_in_stage = False

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of FT; weight and rate are those of Tian et al., ICLR 2020, for CIFAR-100."""

        loss_weight: float | str = weight_setting(200.0)
        stage_share: float = stage_setting()
        level: int = setting(
            -1,
            "Position of the level compared, 0 being the finest; -1 takes the last map.",
            least=-1,
        )
        rate: float = setting(0.5, "Channels of a factor in those of the teacher.", above=0)

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        super().__init__(settings, student, teacher)
        self.position = settings.level if settings.level >= 0 else maps_of(teacher.levels)[-1]
        if self.position >= len(teacher.levels):
            rule = f"be a position from 0 to {len(teacher.levels) - 1}, or -1"
            raise SettingError("level", rule, settings.level)
        ours, theirs = (side.levels[self.position].channels for side in (student, teacher))
        factors = max(1, round(settings.rate * theirs))
        self.paraphrase = Paraphraser(theirs, factors)
        self.translate = build_encoder(ours, factors)

    def forward_stage(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute how far the teacher's level is from what the paraphraser makes of it."""
        level = teacher.levels[self.position]
        return {"": F.mse_loss(widen(self.paraphrase(level)), widen(level))}

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss of the factors, which has one part."""
        ours = self.translate(student.levels[self.position])
        theirs = self.paraphrase.encode_fixed(teacher.levels[self.position])
        return {"": factor_loss(ours, theirs)}
