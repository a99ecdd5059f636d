"""Distillation of class logits.

Shapes: N samples, K classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["decoupled_distillation_loss", "distillation_loss"]


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Compare class logits by their softened distributions.

    With p the softmax of the logits divided by the temperature T: `T^2 * KL(p_teacher, p_student)`,
    the mean over the samples. Equal logits give 0, and adding one number to all logits of a sample
    changes nothing. "KD" in Hinton et al., 2015, arXiv:1503.02531, section 2.

    Args:
        student: the student's logits, (N, K).
        teacher: the teacher's logits, (N, K); they take no gradient.
        temperature: T, positive.

    Returns:
        The loss, shape (); 0 for no samples.

    Raises:
        ValueError: the shapes differ or have fewer than 2 classes, the temperature is not
            positive, or the teacher requires a gradient.
    """
    _check(student, teacher, temperature)
    if len(student) == 0:
        return student.sum()
    dtype = torch.promote_types(student.dtype, torch.float32)
    log_p_student, log_p_teacher = (
        F.log_softmax(logits.to(dtype) / temperature, dim=1) for logits in (student, teacher)
    )
    divergence = F.kl_div(log_p_student, log_p_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


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
    the target class, renormalised; the mean over the samples. Equal logits give 0, and a sample
    with beta = 1 - p_target of the teacher and alpha = 1 gives T^2 times the plain KL divergence.
    "DKD" in Zhao et al., CVPR 2022, arXiv:2203.08679, equation 7.

    Args:
        student: the student's logits, (N, K).
        teacher: the teacher's logits, (N, K); they take no gradient.
        target: the true class of each sample, (N,), integers in [0, K).
        alpha: weight of the target term ("TCKD").
        beta: weight of the non-target term ("NCKD").
        temperature: T, positive.

    Returns:
        The loss, shape (); 0 for no samples.

    Raises:
        ValueError: the shapes differ or have fewer than 2 classes, the temperature is not
            positive, or the teacher requires a gradient.
    """
    _check(student, teacher, temperature)
    if target.shape != student.shape[:1]:
        raise ValueError(
            f"target must be one class for each of {student.shape[0]} samples; "
            f"got shape {tuple(target.shape)}"
        )
    if len(student) == 0:
        return student.sum()
    student_parts = _split(student, target, temperature)
    teacher_parts = _split(teacher, target, temperature)
    binary, others = (
        F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        for ours, theirs in zip(student_parts, teacher_parts, strict=True)
    )
    return temperature**2 * (alpha * binary + beta * others)


def _split(logits: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log probabilities of (target, any other class), (N, 2), and among the others, (N, K - 1)."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_p = F.log_softmax(logits.to(dtype) / temperature, dim=1)  # (N, K)
    index = target[:, None]  # (N, 1)
    # Those below the target, and those above it; a mask would have to be waited for on a GPU.
    other = torch.arange(logits.shape[1] - 1, device=logits.device).expand(len(logits), -1)
    others = log_p.gather(1, other + (other >= index))  # (N, K - 1)
    log_other = others.logsumexp(dim=1, keepdim=True)  # log(1 - p_target) without cancellation
    binary = torch.cat([log_p.gather(1, index), log_other], dim=1)  # (N, 2)
    return binary, F.log_softmax(others, dim=1)


def _check(student: Tensor, teacher: Tensor, temperature: float) -> None:
    if student.dim() != 2 or student.shape != teacher.shape or student.shape[1] < 2:
        raise ValueError(
            "student and teacher logits must have one shape (N, K) with K at least 2; "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be positive; got {temperature}")
    if teacher.requires_grad:
        raise ValueError(
            f"teacher logits must not require a gradient; got some of shape {tuple(teacher.shape)} "
            "that do; run the teacher under torch.no_grad()"
        )
