"""RPNLogits: which anchors have an object, and boxes where the teacher is surer of it.

Shapes: A sampled anchors.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.method import Method, Need, Truth, View, given
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import setting
from reviewkd_det.core.widen import widen

__all__ = ["RPNLogits", "anchor_regression_loss", "objectness_loss"]


def objectness_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross entropy of the objectness against the teacher's sigmoid, the mean.

    Args:
        student: the student's logits, (A,).
        teacher: the teacher's logits, (A,); they take no gradient.

    Returns:
        The loss, shape (); 0 for no anchors.
    """
    if len(student) == 0:
        return widen(student).sum()
    return F.binary_cross_entropy_with_logits(widen(student), widen(teacher).sigmoid())


def anchor_regression_loss(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """L1 distance of the coded boxes of some anchors.

    The sum of these anchors' distances, over four numbers each, divided by A.

    Args:
        student: the student's coded boxes, (A, 4).
        teacher: the teacher's coded boxes, (A, 4); they take no gradient.
        counted: whether an anchor counts, (A,).

    Returns:
        The loss, shape (); 0 for no anchors.
    """
    distances = (widen(student) - widen(teacher)).abs().sum(dim=1)
    return (distances * counted).sum() / max(len(distances), 1)


@register("RPNLogits")
class RPNLogits(Method):
    """Compare the sampled anchors of a proposal generator, as two parts of one loss.

    Their objectness, by `objectness_loss`, and by `anchor_regression_loss` their boxes where the
    teacher's objectness is more than the student's.
    """

    needs = Need.OBJECTNESS

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of RPNLogits; no weight is published."""

        boxes: float = setting(1.0, "Factor of the boxes' part.", least=0)

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss of the objectness and that of the boxes."""
        ours, theirs = given(student.objectness), given(teacher.objectness)
        boxes = anchor_regression_loss(
            given(student.anchor_deltas), given(teacher.anchor_deltas), theirs > ours.detach()
        )
        return {"objectness": objectness_loss(ours, theirs), "boxes": self.settings.boxes * boxes}
