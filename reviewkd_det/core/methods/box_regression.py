"""BoxRegression: boxes no worse than the teacher's. Chen et al., NeurIPS 2017.

"Learning Efficient Object Detection Models with Knowledge Distillation". Shapes: P rows, each of a
region with an object.
"""

from dataclasses import dataclass

from torch import Tensor

from reviewkd_det.core import settings
from reviewkd_det.core.method import Method, Need, Truth, View, given
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import setting, weight_setting
from reviewkd_det.core.widen import widen

__all__ = ["BoxRegression", "bounded_regression_loss"]


def bounded_regression_loss(
    student: Tensor, teacher: Tensor, truth: Tensor, *, margin: float = 0.0
) -> Tensor:
    """Squared distance to the true box where it is more than the teacher's.

    With d the squared distance of a coded box to the true one: `d_student` where `d_student >
    d_teacher + margin`, else 0; the mean over the rows. The teacher is a bound and not a target,
    since a regressed box may be anywhere. Section 3.3 of the paper, whose margin has the other
    sign: there the student is to be better by it.

    Args:
        student: the student's coded boxes, (P, 4).
        teacher: the teacher's coded boxes, (P, 4).
        truth: the true coded boxes, (P, 4).
        margin: by how much the student's squared distance may be more.

    Returns:
        The loss, shape (); 0 for no rows.
    """
    ours, theirs = (
        (widen(boxes) - widen(truth)).square().sum(dim=1) for boxes in (student, teacher)
    )
    return (ours * (ours > theirs + margin)).sum() / max(len(ours), 1)


@register("BoxRegression")
class BoxRegression(Method):
    """The student's squared distances where the teacher is nearer; see the loss."""

    needs = Need.DELTAS

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of BoxRegression; the weight is published."""

        loss_weight: float | str = weight_setting(0.5)
        margin: float = setting(
            0.0,
            "By how much the student's squared distance may be more than the teacher's; less than "
            "0 means that it has to be less.",
        )

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss, which has one part."""
        boxes = (given(x.deltas) for x in (student, teacher, truth))
        return {"": bounded_regression_loss(*boxes, margin=self.settings.margin)}
