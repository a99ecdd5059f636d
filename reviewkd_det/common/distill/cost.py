"""What a distilled step costs beside a plain one, estimated before the first step.

Shapes: 2 images, since batch statistics of one value are none.
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from reviewkd_det.common.tensors.multiply_adds import count_multiply_adds, estimate
from reviewkd_det.core import Method, Truth, View

__all__ = ["IMAGES", "distillation_cost", "learning_view"]

IMAGES = 2


def distillation_cost(
    student: nn.Module,
    student_images: Tensor,
    teacher: nn.Module,
    teacher_images: Tensor,
    methods: Iterable[Method],
    views: Callable[[Any, Any], tuple[View, View, Truth]],
) -> float | None:
    """Multiply-adds that teacher and methods add, in those of the student.

    Counted for an image of a training step: forward and backward of the student and of the methods
    that have parameters; forward of the teacher.

    Args:
        student: what is counted of the student, in training mode; it is left as it is.
        student_images: images of the student, without values.
        teacher: what is counted of the teacher; it is left as it is.
        teacher_images: images of the teacher, without values.
        methods: the methods; those whose views are not there are not counted.
        views: function from what student and teacher return, without values, to their views.

    Returns:
        The ratio; None where a network cannot be counted.
    """
    return estimate(_cost, student, student_images, teacher, teacher_images, methods, views)


def learning_view(view: View) -> View:
    """The view with tensors of its own, which take a gradient."""
    logits = view.logits
    return View(
        tuple(level.detach().requires_grad_() for level in view.levels),
        None if logits is None else logits.detach().requires_grad_(),
    )


def _cost(
    student: nn.Module,
    student_images: Tensor,
    teacher: nn.Module,
    teacher_images: Tensor,
    methods: Iterable[Method],
    views: Callable[[Any, Any], tuple[View, View, Truth]],
) -> float:
    own, output = count_multiply_adds(student, student_images, backward=True)
    added, taught = count_multiply_adds(teacher, teacher_images, backward=False)
    student_view, teacher_view, truth = views(output, taught)
    for method in methods:
        if any(True for _ in method.parameters()):
            inputs = learning_view(student_view), teacher_view, truth
            added += count_multiply_adds(method, *inputs, backward=True)[0]
    return added / own
