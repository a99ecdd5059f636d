"""TfKD: a virtual teacher that is right and unsure, without any network. Yuan et al., CVPR 2020.

"Revisiting Knowledge Distillation via Label Smoothing Regularization", arXiv:1909.11723. Shapes: N
images, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.method import Method, Need, Truth, View, given
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import setting
from reviewkd_det.core.widen import widen

__all__ = ["TfKD", "virtual_teacher_loss"]


def virtual_teacher_loss(
    logits: Tensor, target: Tensor, *, correct: float = 0.99, temperature: float = 20.0
) -> Tensor:
    """Compare class probabilities with those of a teacher that is made up.

    The teacher's probability u is `correct` for the true class and shared equally by the others:
    `KL(softmax(u / T), softmax(logits))`, the mean over images. The student is not softened.
    Equations 9 and 10; code that averages over classes too gives a K-th of it.

    Args:
        logits: the student's logits, (N, K).
        target: true classes, (N,); a negative one leaves its image out.
        correct: u of the true class.
        temperature: T, positive.

    Returns:
        The loss, shape (); 0 without any image that counts.
    """
    counts, rows = target >= 0, widen(logits)
    others = torch.full_like(rows, (1 - correct) / (rows.shape[1] - 1))
    wanted = others.scatter(1, target.clamp(min=0)[:, None], correct)
    softened = (wanted / temperature).softmax(dim=1)
    divergence = F.kl_div(rows.log_softmax(dim=1), softened, reduction="none").sum(dim=1)
    return (divergence * counts).sum() / counts.sum().clamp(min=1)


@register("TfKD")
class TfKD(Method):
    """The loss of a virtual teacher; a network named as the teacher is not used."""

    needs = Need.LOGITS | Need.TARGET | Need.ALONE

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of TfKD; no weight is published for the mean over images alone."""

        correct: float = setting(
            0.99, "Probability of the true class before it is softened.", above=0, below=1
        )
        temperature: float = setting(20.0, "Temperature of the virtual teacher.", above=0)

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss, which has one part."""
        s = self.settings
        loss = virtual_teacher_loss(
            given(student.logits), given(truth.target), correct=s.correct, temperature=s.temperature
        )
        return {"": loss}
