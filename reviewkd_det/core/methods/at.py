"""AT: maps of attention, the energy of each cell. Zagoruyko and Komodakis, ICLR 2017.

arXiv:1612.03928; the squared form of the authors' code, not the norm of the paper's equation 2.
Shapes: a level is (N, C, H, W).
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core.alignment import pool_to_smaller
from reviewkd_det.core.levelwise import LevelSettings, LevelwiseMethod
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import AUTO, weight_setting

__all__ = ["AT", "attention_loss", "attention_map"]


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare two levels by where their energy is.

    With a(F) the mean over the channels of F squared, flattened and divided by its norm:
    `mean((a(student) - a(teacher))^2)` over images and cells. Channels may differ; the larger map
    is average-pooled to the smaller. Scaling an image's map changes nothing.

    Args:
        student: the student's level, (N, Cs, Hs, Ws).
        teacher: the teacher's level, (N, Ct, Ht, Wt).

    Returns:
        The loss, shape ().
    """
    ours, theirs = map(attention_map, pool_to_smaller(student, teacher))
    return F.mse_loss(ours, theirs)


def attention_map(maps: Tensor) -> Tensor:
    """Energy of each cell, the mean over the channels, divided by its norm; (N, H * W)."""
    return F.normalize(maps.square().mean(1).flatten(1))


@register("AT")
class AT(LevelwiseMethod):
    """The attention loss, summed over the levels; see `attention_loss`."""

    @dataclass(frozen=True, kw_only=True)
    class Settings(LevelSettings):
        """Settings of AT; the weight is published for CIFAR-100."""

        loss_weight: float | str = weight_setting(1000.0, detection=AUTO)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the attention loss of a level."""
        return attention_loss(student, teacher)
