"""RKD: distances and angles between rows of features. Park et al., CVPR 2019, arXiv:1904.05068.

Shapes: R rows of D features.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.registry import register
from reviewkd_det.core.relations import VectorMethod, squared_distances
from reviewkd_det.core.settings import AUTO, setting, weight_setting
from reviewkd_det.core.widen import product, widen

__all__ = ["RKD", "angle_loss", "distance_loss"]

MOST_ROWS = 128  # of which all triples are compared; the others are left out, evenly
SMALLEST = 1e-12
APART = 1e-12  # rows are equal below that part of their squares


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare the distances of rows, each over the mean of the positive ones.

    The smooth L1 difference (of Huber, with delta 1) of both (R, R) matrices, its mean. Equations 5
    and 6 of the paper.

    Args:
        student: rows of features, (R, Ds).
        teacher: rows of features, (R, Dt).

    Returns:
        The loss, shape ().
    """
    ours, theirs = (_distances(widen(x)) for x in (student, teacher))
    return F.smooth_l1_loss(ours, theirs)


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare the cosines of the angles that any three rows make.

    The smooth L1 difference of all (R, R, R) cosines, its mean. Equations 7 and 8 of the paper.
    Of more than 128 rows some are left out.

    Args:
        student: rows of features, (R, Ds).
        teacher: rows of features, (R, Dt).

    Returns:
        The loss, shape ().
    """
    every = -(-len(student) // MOST_ROWS)
    ours, theirs = (_cosines(widen(x)[:: max(every, 1)]) for x in (student, teacher))
    return F.smooth_l1_loss(ours, theirs)


def _distances(rows: Tensor) -> Tensor:
    squares = squared_distances(rows)
    is_positive = squares > SMALLEST
    # The root has no gradient at 0.
    distances = squares.where(is_positive, 1.0).sqrt().where(is_positive, 0.0)
    return distances / (distances.sum() / is_positive.sum().clamp(min=1)).clamp(min=SMALLEST)


def _cosines(rows: Tensor) -> Tensor:
    """Cosines of the angles at the first row between the second and the third, (R, R, R).

    They are found from the products of rows, without the (R, R, D) differences. These products are
    float64, since differences of them cancel. Rows that are equal make no angle: 0.
    """
    wide = rows.double()
    products = product(wide, wide.T)  # (R, R)
    itself = products.diagonal()
    towards = itself[:, None] - products  # (R, R), x_i (x_i - x_j)
    squares = towards + towards.T  # (R, R)
    are_apart = squares > APART * (itself[:, None] + itself)
    inverse = squares.where(are_apart, 1.0).rsqrt().where(are_apart, 0.0)
    dots = products + towards[:, :, None] - products[:, None]  # (x_j - x_i) (x_k - x_i)
    return (dots * (inverse[:, :, None] * inverse[:, None])).to(rows.dtype)


@register("RKD")
class RKD(VectorMethod):
    """Distances and angles; see `distance_loss` and `angle_loss`.

    Rows are compared within the batch of a process.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of RKD; the weights are those of Tian et al., ICLR 2020, for CIFAR-100."""

        loss_weight: float | str = weight_setting(1.0, detection=AUTO)
        distance: float = setting(25.0, "Weight of the distances; the paper has 1.", least=0)
        angle: float = setting(50.0, "Weight of the angles; the paper has 2.", least=0)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the weighted sum of both."""
        distance: Tensor = self.settings.distance * distance_loss(student, teacher)
        angle: Tensor = self.settings.angle * angle_loss(student, teacher)
        return distance + angle
