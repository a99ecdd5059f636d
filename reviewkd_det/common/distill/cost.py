"""What a distilled step costs beside a plain one, estimated before the first step.

Shapes: 2 images, since batch statistics of one value are none, padded to H x W.
"""

from typing import Any

import torch

from reviewkd_det.common.tensors.multiply_adds import count_multiply_adds, estimate
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.reading.images import cut_to, size_for
from reviewkd_det.d2.reading.levels import PyramidReview

__all__ = ["distillation_cost"]

SIDE = 512  # pixels; the ratio hardly depends on it


def distillation_cost(model: DistilledDetector) -> float | None:
    """Multiply-adds that teacher and fusions add, in those of the student's backbone.

    Counted for an image of a training step: forward and backward of the student's backbone with its
    pyramid, of ReviewKD's fusions and loss; forward of the teacher's. Heads are not counted: what
    they do depends on the image.

    Args:
        model: distilled, in training mode, on any device; it is left as it is.

    Returns:
        The ratio; None where a backbone cannot be counted.
    """
    return estimate(_cost, model)


def _cost(model: DistilledDetector) -> float:
    student, teacher = model.student.backbone, model.teacher.module  # type: ignore[union-attr]
    size = size_for(student, (SIDE, SIDE))
    own, levels = count_multiply_adds(student, _images(size), backward=True)
    seen = _images(size_for(teacher.backbone, size), teacher.precision)
    added, teacher_levels = count_multiply_adds(teacher.backbone, seen, backward=False)
    shapes = teacher.backbone.output_shape()
    methods: list[Any] = list(model.methods.values())
    for method in methods:
        if isinstance(method, PyramidReview):
            ours = [levels[name].detach().requires_grad_() for name in method.in_features]
            theirs = [
                cut_to(teacher_levels[name], size, shapes[name].stride)
                for name in method.in_features
            ]
            added += count_multiply_adds(method.distiller, ours, theirs, backward=True)[0]
    return added / own


def _images(size: tuple[int, int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(2, 3, *size, dtype=dtype, device="meta")
