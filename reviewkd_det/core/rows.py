"""Rows of class logits.

Shapes: R rows, each of an image, a region or an anchor; K classes.
"""

from abc import abstractmethod

from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core.method import Method, Need, Truth, View
from reviewkd_det.core.widen import widen

__all__ = ["RowMethod", "check_logits", "log_softened"]


def log_softened(logits: Tensor, temperature: float) -> Tensor:
    """Log probabilities of logits divided by a temperature, in float32 or wider, (R, K)."""
    return F.log_softmax(widen(logits) / temperature, dim=1)


def check_logits(student: Tensor, teacher: Tensor, temperature: float) -> None:
    """Check what logit losses compare.

    Args:
        student: logits, (R, K).
        teacher: logits, (R, K).
        temperature: divisor of both.

    Raises:
        ValueError: the shapes differ or have fewer than 2 classes, the temperature is not
            positive, or the teacher requires a gradient.
    """
    if student.dim() != 2 or student.shape != teacher.shape or student.shape[1] < 2:
        raise ValueError(
            "student and teacher logits must have one shape (R, K) with K at least 2; "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be positive; got {temperature}")
    if teacher.requires_grad:
        raise ValueError(
            f"teacher logits must not require a gradient; got some of shape {tuple(teacher.shape)} "
            "that do; run the teacher under torch.no_grad()"
        )


class RowMethod(Method):
    """Compare rows of class logits; a subclass gives `compare`."""

    needs = Need.LOGITS

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the loss of logits, (R, K) each, shape ()."""

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss, which has one part."""
        assert student.logits is not None, "the method needs them"
        assert teacher.logits is not None, "the method needs them"
        return {"": self.compare(student.logits, teacher.logits, truth)}
