"""Jacobian matching: what of the image moves a class's logit. Srinivas and Fleuret, ICML 2018.

"Knowledge Transfer with Jacobian Matching", arXiv:1803.00443. Shapes: N images.
"""

from dataclasses import dataclass

from torch import Tensor

from reviewkd_det.core import settings
from reviewkd_det.core.method import Method, Need, Truth, View, given
from reviewkd_det.core.registry import register
from reviewkd_det.core.widen import widen

__all__ = ["Jacobian", "jacobian_loss"]

SMALLEST = 1e-12


def jacobian_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare gradients on the images, each divided by its norm.

    `|J_student / |J_student| - J_teacher / |J_teacher||^2`, the mean over images, in [0, 4].
    Equation 8.

    Args:
        student: gradient of the student's logit of the teacher's class, (N, 3, H, W).
        teacher: gradient of the teacher's highest logit, (N, 3, H, W).

    Returns:
        The loss, shape ().
    """
    ours, theirs = (_unit(x) for x in (student, teacher))
    return (ours - theirs).square().sum(1).mean()


def _unit(gradient: Tensor) -> Tensor:
    rows = widen(gradient).flatten(1)
    # Gradients of small numbers would vanish in their squares.
    rows = rows / rows.detach().abs().amax(1, keepdim=True).clamp(min=SMALLEST)
    norms: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / norms.clamp(min=SMALLEST)


@register("Jacobian")
class Jacobian(Method):
    """The loss of the gradients on the images; beside AT, which the paper adds, by naming both."""

    needs = Need.INPUT_GRADIENT

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of Jacobian matching; no weight is published for the networks of CIFAR-100."""

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss, which has one part."""
        ours, theirs = given(student.input_gradient), given(teacher.input_gradient)
        return {"": jacobian_loss(ours, theirs)}
