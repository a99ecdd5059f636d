"""MLKD: rows, their relations and those of classes at several temperatures. Jin et al., CVPR 2023.

"Multi-level Logit Distillation". Shapes: R rows of logits, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reviewkd_det.core.method import Truth
from reviewkd_det.core.methods.kd import distillation_loss
from reviewkd_det.core.registry import register
from reviewkd_det.core.rows import RowMethod, RowSettings
from reviewkd_det.core.settings import setting
from reviewkd_det.core.widen import product, widen

__all__ = ["MLKD", "multi_level_loss"]


def multi_level_loss(
    student: Tensor, teacher: Tensor, *, temperatures: Sequence[float] = (2, 3, 4, 5, 6)
) -> Tensor:
    """Compare logits by rows, by relations of rows and by relations of classes.

    For each temperature T, with P the softmax of the logits divided by it, (R, K): KD, plus the
    squared Frobenius norm of the difference of P P^T over R, plus that of P^T P over K; the sum
    over the temperatures. Equations 4 to 9 of the paper, on one view of the images: the authors'
    code has a second, strongly augmented one, and a choice of confident rows, which differ from the
    paper. Rows are compared within the batch of a process.

    Args:
        student: the student's logits, (R, K).
        teacher: the teacher's logits, (R, K); they take no gradient.
        temperatures: the T, positive.

    Returns:
        The loss, shape (); 0 for no rows.

    Raises:
        ValueError: see `distillation_loss`.
    """
    total = [_at(student, teacher, temperature) for temperature in temperatures]
    return torch.stack(total).sum()


def _at(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    loss = distillation_loss(student, teacher, temperature=temperature)
    if len(student) == 0:
        return loss
    ours, theirs = ((widen(x) / temperature).softmax(1) for x in (student, teacher))
    rows = (product(ours, ours.T) - product(theirs, theirs.T)).square().sum() / len(ours)
    classes = (product(ours.T, ours) - product(theirs.T, theirs)).square().sum() / ours.shape[1]
    return loss + rows + classes


@register("MLKD")
class MLKD(RowMethod):
    """Compare the logits at several levels; see `multi_level_loss`."""

    @dataclass(frozen=True, kw_only=True)
    class Settings(RowSettings):
        """Settings of MLKD; the temperatures are published for CIFAR-100."""

        temperatures: tuple[int, ...] = setting(
            (2, 3, 4, 5, 6), "Temperatures at which the logits are compared.", least=1
        )

    def compare(self, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the loss of the logits."""
        return multi_level_loss(student, teacher, temperatures=self.settings.temperatures)
