"""DKD: the target class apart from the others. Zhao et al., CVPR 2022, arXiv:2203.08679.

Shapes: R rows of logits, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core.method import Need, Truth, given
from reviewkd_det.core.registry import register
from reviewkd_det.core.rows import (
    RowMethod,
    RowSettings,
    binary_divergence,
    check_logits,
    log_softened,
)
from reviewkd_det.core.settings import setting

__all__ = ["DKD", "binary_decoupled_loss", "decoupled_distillation_loss"]


def decoupled_distillation_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 0.25,
    temperature: float = 1.0,
) -> Tensor:
    """Compare class logits, the target class apart from the others.

    With p the softmax of the logits divided by the temperature T and b = (p_target, 1 - p_target):
    `T^2 * (alpha * KL(b_teacher, b_student) + beta * KL(q_teacher, q_student))`, q being p without
    the target class, renormalised; the mean over the rows. Equal logits give 0, and a row
    with beta = 1 - p_target of the teacher and alpha = 1 gives T^2 times the plain KL divergence.
    "DKD" in Zhao et al., CVPR 2022, arXiv:2203.08679, equation 7.

    Args:
        student: the student's logits, (R, K).
        teacher: the teacher's logits, (R, K); they take no gradient.
        target: the true class of each row, (R,), integers in [0, K).
        alpha: weight of the target term ("TCKD").
        beta: weight of the non-target term ("NCKD").
        temperature: T, positive.

    Returns:
        The loss, shape (); 0 for no rows.

    Raises:
        ValueError: the shapes differ or have fewer than 2 classes, the temperature is not
            positive, or the teacher requires a gradient.
    """
    check_logits(student, teacher, temperature)
    _check_target(student, target)
    if len(student) == 0:
        return student.sum()
    student_parts = _split(student, target, temperature)
    teacher_parts = _split(teacher, target, temperature)
    binary, others = (
        F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        for ours, theirs in zip(student_parts, teacher_parts, strict=True)
    )
    return temperature**2 * (alpha * binary + beta * others)


def binary_decoupled_loss(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 0.25,
    temperature: float = 1.0,
) -> Tensor:
    """Compare logits of binary classes, as those of a sigmoid, the target class apart.

    With p the sigmoid of a logit divided by the temperature T, and b = (p, 1 - p):
    `T^2 * (alpha * KL(b_teacher, b_student) of the target class + beta * the sum over the others)`;
    the mean over the rows. The binary terms are what the softmax's target term is; the classes do
    not share a sum, so no other is renormalised. With alpha = beta = 1 it is the binary KD.

    Args:
        student: the student's logits, (R, K).
        teacher: the teacher's logits, (R, K); they take no gradient.
        target: the true class of each row, (R,), integers in [0, K).
        alpha: weight of the target class.
        beta: weight of the other classes.
        temperature: T, positive.

    Returns:
        The loss, shape (); 0 for no rows.

    Raises:
        ValueError: see `decoupled_distillation_loss`; one class is enough.
    """
    check_logits(student, teacher, temperature, least_classes=1)
    _check_target(student, target)
    if len(student) == 0:
        return student.sum()
    divergence = binary_divergence(student, teacher, temperature)  # (R, K)
    of_target = divergence.gather(1, target[:, None])[:, 0]  # (R,)
    rows = alpha * of_target + beta * (divergence.sum(dim=1) - of_target)
    return temperature**2 * rows.mean()


def _check_target(student: Tensor, target: Tensor) -> None:
    if target.shape != student.shape[:1]:
        raise ValueError(
            f"target must be one class for each of {student.shape[0]} samples; "
            f"got shape {tuple(target.shape)}"
        )


def _split(logits: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log probabilities of (target, any other class), (R, 2), and among the others, (R, K - 1)."""
    log_p = log_softened(logits, temperature)  # (R, K)
    index = target[:, None]  # (R, 1)
    # Those below the target, and those above it; a mask would have to be waited for on a GPU.
    other = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    others = log_p.gather(1, other + (other >= index))  # (R, K - 1)
    log_other = others.logsumexp(dim=1, keepdim=True)  # log(1 - p_target) without cancellation
    binary = torch.cat([log_p.gather(1, index), log_other], dim=1)  # (R, 2)
    return binary, F.log_softmax(others, dim=1)


@register("DKD")
class DKD(RowMethod):
    """Compare the logits, the target class apart; see `decoupled_distillation_loss`.

    Binary classes are compared in its binary form, `binary_decoupled_loss`.
    The published settings are those of CIFAR-100 for images and of COCO for regions.
    """

    needs = Need.LOGITS | Need.TARGET
    takes_binary = True

    @dataclass(frozen=True, kw_only=True)
    class Settings(RowSettings):
        """Settings of DKD."""

        alpha: float = setting(1.0, "Weight of the target term.")
        beta: float = setting(8.0, "Weight of the non-target term.", detection=0.25)
        temperature: float = setting(4.0, "Temperature of both softmaxes.", above=0, detection=1.0)

    def compare(self, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the loss of the logits."""
        loss = binary_decoupled_loss if self.is_binary else decoupled_distillation_loss
        return loss(
            student,
            teacher,
            given(truth.target),
            alpha=self.settings.alpha,
            beta=self.settings.beta,
            temperature=self.settings.temperature,
        )
