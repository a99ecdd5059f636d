"""SP: which images of a batch are alike. Tung and Mori, ICCV 2019, arXiv:1907.09682.

The authors' form, whose rows are divided by their L2 norm. Shapes: a level is (N, C, H, W).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core.levelwise import LevelSettings, LevelwiseMethod, maps_of
from reviewkd_det.core.method import Level
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import AUTO, setting, weight_setting
from reviewkd_det.core.widen import product, widen

__all__ = ["SP", "similarity_loss"]


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare how images resemble each other for two networks.

    With A the flattened level, (N, C * H * W), and S = A A^T, of which each row is divided by its
    norm: the squared Frobenius norm of S_teacher - S_student over N^2. Equation 4 of the paper.
    Channels and sizes may differ; scaling a level changes nothing. Images are compared within the
    batch of a process.

    Args:
        student: the student's level, (N, Cs, Hs, Ws).
        teacher: the teacher's level, (N, Ct, Ht, Wt).

    Returns:
        The loss, shape ().
    """
    ours, theirs = (_similarities(widen(level)) for level in (student, teacher))
    return F.mse_loss(ours, theirs)


def _similarities(level: Tensor) -> Tensor:
    rows = level.flatten(1)  # (N, C * H * W)
    return F.normalize(product(rows, rows.T))  # (N, N)


@register("SP")
class SP(LevelwiseMethod):
    """The similarities of the images, summed over the levels; see `similarity_loss`."""

    @dataclass(frozen=True, kw_only=True)
    class Settings(LevelSettings):
        """Settings of SP; the weight is published for CIFAR-100, with the last stage."""

        loss_weight: float | str = weight_setting(3000.0, detection=AUTO)
        levels: tuple[int, ...] = setting(
            (),
            "Positions of the levels compared, 0 being the finest; () takes the last map.",
            least=0,
        )

    def choose_levels(self, levels: Sequence[Level]) -> tuple[int, ...]:
        """Choose the last level that is a map of several cells."""
        return maps_of(levels)[-1:]

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the similarity loss of a level."""
        return similarity_loss(student, teacher)
