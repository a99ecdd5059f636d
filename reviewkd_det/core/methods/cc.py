"""CC: correlations of rows by a kernel. Peng et al., ICCV 2019, arXiv:1904.01802.

The paper's form; the one in Tian et al., ICLR 2020, compares differences of neighbours in the batch
instead. Shapes: R rows of D features.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.registry import register
from reviewkd_det.core.relations import VectorMethod
from reviewkd_det.core.settings import AUTO, setting, weight_setting
from reviewkd_det.core.widen import product, widen

__all__ = ["CC", "congruence_loss"]


def congruence_loss(
    student: Tensor, teacher: Tensor, *, gamma: float = 0.4, order: int = 2
) -> Tensor:
    """Compare the correlations of rows by a Gaussian kernel, in its Taylor series.

    With rows a and b of norm 1, k(a, b) is the sum of `exp(-2 gamma) (2 gamma)^p / p! (a . b)^p`
    for p from 0 to P; the loss is the mean squared difference of both (R, R) matrices. Equations 7
    to 9.

    Args:
        student: rows of features, (R, Ds).
        teacher: rows of features, (R, Dt).
        gamma: width of the kernel, positive.
        order: P, at least 1.

    Returns:
        The loss, shape ().
    """
    ours, theirs = (_correlations(widen(x), gamma, order) for x in (student, teacher))
    return F.mse_loss(ours, theirs)


def _correlations(rows: Tensor, gamma: float, order: int) -> Tensor:
    unit = F.normalize(rows)
    products = product(unit, unit.T)
    factors = [
        math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) for p in range(order + 1)
    ]
    found = products * 0
    for factor in reversed(factors):
        found = found * products + factor
    return found


@register("CC")
class CC(VectorMethod):
    """The correlations of the rows; see `congruence_loss`.

    Rows are compared within the batch of a process.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of CC; no weight is published for this form and these networks."""

        loss_weight: float | str = weight_setting(1.0, detection=AUTO)
        gamma: float = setting(0.4, "Width of the Gaussian kernel.", above=0)
        order: int = setting(2, "Last power of the Taylor series.", least=1)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss of the correlations."""
        s = self.settings
        return congruence_loss(student, teacher, gamma=s.gamma, order=s.order)
