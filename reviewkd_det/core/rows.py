"""Rows of class logits.

Shapes: R rows, each of an image, a region or an anchor; K classes.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core.method import Method, Need, Side, Truth, View, given
from reviewkd_det.core.settings import SettingError, Settings, setting
from reviewkd_det.core.widen import widen

__all__ = [
    "RowMethod",
    "RowSettings",
    "binary_divergence",
    "check_logits",
    "log_softened",
    "standardized",
]

EPSILON = 1e-7  # added to the deviation of a row


def standardized(logits: Tensor) -> Tensor:
    """Rows of logits without their mean and divided by their unbiased deviation, (R, K).

    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, arXiv:2403.01427: the
    student need not match the teacher's range of logits, only their relations.
    """
    std, mean = torch.std_mean(widen(logits), dim=1, keepdim=True)
    return (widen(logits) - mean) / (std + EPSILON)


def log_softened(logits: Tensor, temperature: float) -> Tensor:
    """Log probabilities of logits divided by a temperature, in float32 or wider, (R, K)."""
    return F.log_softmax(widen(logits) / temperature, dim=1)


def binary_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(p_teacher, p_student) of each logit's own yes and no, (R, K).

    p is the sigmoid of a logit divided by the temperature.
    """
    ours, theirs = (widen(logits) / temperature for logits in (student, teacher))
    student_sides, teacher_sides = (
        torch.stack([F.logsigmoid(x), F.logsigmoid(-x)]) for x in (ours, theirs)
    )  # (2, R, K) each
    return F.kl_div(student_sides, teacher_sides, reduction="none", log_target=True).sum(dim=0)


def check_logits(
    student: Tensor, teacher: Tensor, temperature: float, *, least_classes: int = 2
) -> None:
    """Check what logit losses compare.

    Args:
        student: logits, (R, K).
        teacher: logits, (R, K).
        temperature: divisor of both.
        least_classes: least K.

    Raises:
        ValueError: the shapes differ or have fewer classes, the temperature is not positive, or the
            teacher requires a gradient.
    """
    if student.dim() != 2 or student.shape != teacher.shape or student.shape[1] < least_classes:
        raise ValueError(
            "student and teacher logits must have one shape (R, K) with K at least "
            f"{least_classes}; got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be positive; got {temperature}")
    if teacher.requires_grad:
        raise ValueError(
            f"teacher logits must not require a gradient; got some of shape {tuple(teacher.shape)} "
            "that do; run the teacher under torch.no_grad()"
        )


@dataclass(frozen=True, kw_only=True)
class RowSettings(Settings):
    """Settings of a method that compares rows of logits."""

    standardize: bool = setting(
        False,
        "Whether each row of logits is first brought to mean 0 and deviation 1, on both sides; the "
        "published weight of KD is then 9 and its temperature 2.",
    )


class RowMethod(Method):
    """Compare rows of class logits; a subclass gives `compare`.

    Attributes:
        is_binary: whether each class is told apart by a sigmoid of its own, see `Side`.
    """

    needs = Need.LOGITS
    Settings = RowSettings

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        """Keep what kind of logits the rows are; see `Method`."""
        super().__init__(settings, student, teacher)
        self.is_binary = student.binary
        if settings.standardize and self.is_binary:
            raise SettingError("standardize", "be False where classes are binary", True)

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the loss of logits, (R, K) each, shape ()."""

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss, which has one part."""
        ours, theirs = given(student.logits), given(teacher.logits)
        if self.settings.standardize:
            ours, theirs = standardized(ours), standardized(theirs)
        return {"": self.compare(ours, theirs, truth)}
