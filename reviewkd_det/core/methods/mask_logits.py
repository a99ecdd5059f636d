"""MaskLogits: the softened masks of the teacher, cell by cell. Hinton et al., 2015, on masks.

The softening of arXiv:1503.02531 with the two classes of a cell of a mask, object or not. Shapes: P
rows, each of a region with an object.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.method import Method, Need, Truth, View, given
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import setting
from reviewkd_det.core.widen import widen

__all__ = ["MaskLogits", "mask_loss"]


def mask_loss(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compare mask logits of the true class by their softened sigmoids.

    With p the sigmoid of a logit divided by the temperature T: `T^2 * BCE(p_teacher, p_student)`,
    the mean over cells and rows. The teacher's masks are resized bilinearly to the student's.

    Args:
        student: the student's mask logits, (P, H, W).
        teacher: the teacher's mask logits, (P, H', W'); they take no gradient.
        temperature: T, positive.

    Returns:
        The loss, shape (); 0 for no rows.
    """
    if len(student) == 0:
        return widen(student).sum()
    ours, theirs = widen(student), widen(teacher)
    if ours.shape != theirs.shape:
        theirs = F.interpolate(theirs[:, None], ours.shape[1:], mode="bilinear")[:, 0]
    softened = (theirs / temperature).sigmoid()
    return temperature**2 * F.binary_cross_entropy_with_logits(ours / temperature, softened)


@register("MaskLogits")
class MaskLogits(Method):
    """Compare the masks of regions with an object; see `mask_loss`."""

    needs = Need.MASKS

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of MaskLogits."""

        temperature: float = setting(1.0, "Temperature of both sigmoids.", above=0)

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss, which has one part."""
        ours, theirs = given(student.masks), given(teacher.masks)
        return {"": mask_loss(ours, theirs, temperature=self.settings.temperature)}
