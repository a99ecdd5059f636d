"""How rows of features lie to each other.

Shapes: R rows of D features.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from reviewkd_det.core.method import Method, Need, Truth, View, given
from reviewkd_det.core.widen import product

__all__ = ["VectorMethod", "squared_distances"]


def squared_distances(rows: Tensor) -> Tensor:
    """Squared distance of each row to each other, (R, R); 0 on the diagonal, without a gradient.

    Args:
        rows: features, (R, D), float32 or wider.
    """
    squares = rows.square().sum(1)  # (R,)
    found = (squares[:, None] + squares - 2 * product(rows, rows.T)).clamp(min=0)
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return found.masked_fill(itself, 0)


class VectorMethod(Method):
    """Compare rows of features; a subclass gives `compare`, for one row or more."""

    needs = Need.VECTOR

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss of features, (R, Ds) and (R, Dt), shape ()."""

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss, which has one part."""
        ours = given(student.vector)
        return {"": self.compare(ours, given(teacher.vector)) if len(ours) else ours.sum()}
