"""DIST: relations between classes and between rows. Huang et al., NeurIPS 2022, arXiv:2205.10536.

Shapes: R rows of logits, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from reviewkd_det.core.method import Truth
from reviewkd_det.core.registry import register
from reviewkd_det.core.rows import RowMethod, RowSettings, check_logits
from reviewkd_det.core.settings import setting, weight_setting
from reviewkd_det.core.widen import widen

__all__ = ["DIST", "relation_loss"]

EPSILON = 1e-8  # added to the product of two norms


def relation_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 4.0,
    binary: bool = False,
) -> Tensor:
    """Compare class probabilities by their correlation, within each row and within each class.

    With p the softmax of the logits divided by the temperature T, and r Pearson's correlation: `T^2
    * (beta * (1 - mean r of the rows) + gamma * (1 - mean r of the columns))`. Equations 9 to 11 of
    the paper, with the factor T^2 of the authors' code. Rows are compared within the batch of a
    process.

    Args:
        student: the student's logits, (R, K).
        teacher: the teacher's logits, (R, K); they take no gradient.
        beta: weight of the correlation between classes, in each row.
        gamma: weight of the correlation between rows, in each class.
        temperature: T, positive.
        binary: whether each class is told apart by a sigmoid, which then stands for the softmax.

    Returns:
        The loss, shape (); 0 for no rows.

    Raises:
        ValueError: see `check_logits`.
    """
    check_logits(student, teacher, temperature, least_classes=1 if binary else 2)
    if len(student) == 0:
        return student.sum()
    scaled = [widen(x) / temperature for x in (student, teacher)]
    ours, theirs = (x.sigmoid() if binary else x.softmax(1) for x in scaled)
    between = 1 - _correlation(ours, theirs).mean()
    within = 1 - _correlation(ours.T, theirs.T).mean()
    return temperature**2 * (beta * between + gamma * within)


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of each pair of rows."""
    a, b = (x - x.mean(1, keepdim=True) for x in (first, second))
    norms: Tensor = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return (a * b).sum(1) / (norms + EPSILON)


@register("DIST")
class DIST(RowMethod):
    """Compare the logits by correlations; see `relation_loss`."""

    takes_binary = True

    @dataclass(frozen=True, kw_only=True)
    class Settings(RowSettings):
        """Settings of DIST; those of images are published for CIFAR-100."""

        loss_weight: float | str = weight_setting(2.0)
        beta: float = setting(1.0, "Weight of the correlation within each row.", least=0)
        gamma: float = setting(1.0, "Weight of the correlation within each class.", least=0)
        temperature: float = setting(4.0, "Temperature of both softmaxes.", above=0, detection=1.0)

    def compare(self, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the loss of the logits."""
        s = self.settings
        return relation_loss(
            student,
            teacher,
            beta=s.beta,
            gamma=s.gamma,
            temperature=s.temperature,
            binary=self.is_binary,
        )
