"""KD: the softened class probabilities of the teacher. Hinton et al., 2015, arXiv:1503.02531.

Shapes: R rows of logits, K classes.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core.method import Truth
from reviewkd_det.core.registry import register
from reviewkd_det.core.rows import (
    RowMethod,
    RowSettings,
    binary_divergence,
    check_logits,
    log_softened,
)
from reviewkd_det.core.settings import setting

__all__ = ["KD", "binary_distillation_loss", "distillation_loss"]


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Compare class logits by their softened distributions.

    With p the softmax of the logits divided by the temperature T: `T^2 * KL(p_teacher, p_student)`,
    the mean over the rows. Equal logits give 0, and adding one number to all logits of a row
    changes nothing. "KD" in Hinton et al., 2015, arXiv:1503.02531, section 2.

    Args:
        student: the student's logits, (R, K).
        teacher: the teacher's logits, (R, K); they take no gradient.
        temperature: T, positive.

    Returns:
        The loss, shape (); 0 for no rows.

    Raises:
        ValueError: the shapes differ or have fewer than 2 classes, the temperature is not
            positive, or the teacher requires a gradient.
    """
    check_logits(student, teacher, temperature)
    if len(student) == 0:
        return student.sum()
    log_p_student, log_p_teacher = (
        log_softened(logits, temperature) for logits in (student, teacher)
    )
    divergence = F.kl_div(log_p_student, log_p_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def binary_distillation_loss(
    student: Tensor, teacher: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Compare logits of binary classes, as those of a sigmoid.

    With p the sigmoid of a logit divided by the temperature T, and b = (p, 1 - p):
    `T^2 * KL(b_teacher, b_student)`, the sum over the classes and the mean over the rows. Equal
    logits give 0. One class of logit x is the softmax of (x, 0).

    Args:
        student: the student's logits, (R, K).
        teacher: the teacher's logits, (R, K); they take no gradient.
        temperature: T, positive.

    Returns:
        The loss, shape (); 0 for no rows.

    Raises:
        ValueError: see `distillation_loss`; one class is enough.
    """
    check_logits(student, teacher, temperature, least_classes=1)
    if len(student) == 0:
        return student.sum()
    return temperature**2 * binary_divergence(student, teacher, temperature).sum(dim=1).mean()


@register("KD")
class KD(RowMethod):
    """Compare the logits; see `distillation_loss`, and of binary classes its binary form."""

    takes_binary = True

    @dataclass(frozen=True, kw_only=True)
    class Settings(RowSettings):
        """Settings of KD. The temperature of images is published; that of regions is DKD's."""

        temperature: float = setting(4.0, "Temperature of both softmaxes.", above=0, detection=1.0)

    def compare(self, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the loss of the logits."""
        loss = binary_distillation_loss if self.is_binary else distillation_loss
        return loss(student, teacher, temperature=self.settings.temperature)
