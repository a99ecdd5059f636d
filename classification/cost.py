"""What a distilled step costs beside a plain one, estimated before the first step."""

import torch

from classification.distilled import DistilledClassifier
from classification.reading.taps import Outputs
from reviewkd_det.common.tensors.multiply_adds import count_multiply_adds, estimate

__all__ = ["distillation_cost"]


def distillation_cost(classifier: DistilledClassifier, image_size: int) -> float | None:
    """Multiply-adds that teacher and fusions add, in those of the student.

    Counted for an image of a training step: forward and backward of the student and of the methods
    that have parameters; forward of the teacher.

    Args:
        classifier: with a teacher, in training mode, on any device; it is left as it is.
        image_size: side of its images in pixels.

    Returns:
        The ratio; None where a network cannot be counted.
    """
    return estimate(_cost, classifier, image_size)


def _cost(classifier: DistilledClassifier, image_size: int) -> float:
    # 2 images: batch statistics of one value are none.
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    target = torch.zeros(2, dtype=torch.long, device="meta")
    own, outputs = count_multiply_adds(classifier.student, images, backward=True)
    assert classifier.teacher is not None
    added, taught = count_multiply_adds(classifier.teacher.module, images, backward=False)
    student = Outputs(
        outputs.logits.detach().requires_grad_(),
        [level.detach().requires_grad_() for level in outputs.levels],
    )
    for method in classifier.methods.values():
        if any(True for _ in method.parameters()):
            added += count_multiply_adds(method, student, taught, target, backward=True)[0]
    return added / own
