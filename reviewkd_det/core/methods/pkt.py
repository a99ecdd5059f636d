"""PKT: which rows are near, as probabilities. Passalis and Tefas, ECCV 2018, arXiv:1803.10837.

Shapes: R rows of D features.
"""

from dataclasses import dataclass

from torch import Tensor

from reviewkd_det.core import settings
from reviewkd_det.core.registry import register
from reviewkd_det.core.relations import VectorMethod
from reviewkd_det.core.settings import AUTO, weight_setting
from reviewkd_det.core.widen import product, widen

__all__ = ["PKT", "transfer_loss"]

EPSILON = 1e-7


def transfer_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare the probabilities with which each row is a neighbour of each other.

    They are the cosine similarities, brought to [0, 1], over the sum of their row; the loss is
    `p_teacher * log(p_teacher / p_student)`, the mean over all pairs. Equations 4 to 8.

    Args:
        student: rows of features, (R, Ds).
        teacher: rows of features, (R, Dt).

    Returns:
        The loss, shape ().
    """
    ours, theirs = (_neighbours(widen(x)) for x in (student, teacher))
    return (theirs * ((theirs + EPSILON) / (ours + EPSILON)).log()).mean()


def _neighbours(rows: Tensor) -> Tensor:
    unit = rows / (rows.norm(dim=1, keepdim=True) + EPSILON)
    nearness = (product(unit, unit.T) + 1) / 2
    return nearness / nearness.sum(1, keepdim=True)


@register("PKT")
class PKT(VectorMethod):
    """The probabilities of neighbours; see `transfer_loss`.

    Rows are compared within the batch of a process.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of PKT; the weight is that of Tian et al., ICLR 2020, for CIFAR-100."""

        loss_weight: float | str = weight_setting(30000.0, detection=AUTO)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss of the neighbours."""
        return transfer_loss(student, teacher)
