"""What a run says before its first step."""

import logging
from typing import Any

import torch
from detectron2.utils import comm
from torch import nn

from reviewkd_det.common.console.commands import shown_path
from reviewkd_det.common.distill.cost import IMAGES, distillation_cost
from reviewkd_det.common.distill.describe import describe_methods, describe_parameters
from reviewkd_det.common.tensors.multiply_adds import estimate
from reviewkd_det.core import Need, Truth, View
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.reading.images import cut_to, size_for
from reviewkd_det.d2.runs.launch import unwrapped

__all__ = ["cost_of", "describe", "log_description"]

SIDE = 512  # pixels of a counted image; the ratio hardly depends on it


def log_description(model: nn.Module, teacher: str = "", labels: str = "") -> None:
    """Log what is trained, in the main process.

    Args:
        model: what is trained, in training mode; in several processes as they wrap it.
        teacher: config of the teacher, as the run's config names it.
        labels: what the teacher has labelled, in a sentence; "" for nothing.
    """
    if comm.is_main_process():
        told = f"; the teacher's labels: {labels}" if labels else ""
        logging.getLogger(__name__).info("%s%s", describe(unwrapped(model), teacher), told)


def describe(model: nn.Module, teacher: str = "") -> str:
    """What is trained, from what it learns, and what that costs, in a line."""
    student: Any = model.student if isinstance(model, DistilledDetector) else model
    name = f"{type(student).__name__} ({describe_parameters(student)} parameters)"
    if not isinstance(model, DistilledDetector) or model.teacher is None:
        return f"Training {name} without a teacher"
    module = model.teacher.module
    backbone = f"backbone {describe_parameters(getattr(module, 'backbone', module))}"
    source = f"{shown_path(teacher)} ({backbone})" if teacher else f"a teacher ({backbone})"
    if model.others:
        source += f" and {len(model.others)} more"
    methods: Any = dict(model.methods.items())
    unit = "the student's backbone and pyramid"
    cost = estimate(cost_of, model)
    told = describe_methods(methods, ", ".join(model.levels), model.methods, cost, unit, "heads")
    return f"Distilling {name} from {source} with {told}"


def cost_of(model: DistilledDetector) -> float | None:
    """Estimate what the teacher and methods on levels add, in the student's backbone.

    Heads are not counted: what they do depends on the image.

    Args:
        model: distilled, in training mode, on any device; it is left as it is.

    Returns:
        As `distillation_cost`.
    """
    assert model.teacher is not None
    student, teacher = model.student.backbone, model.teacher.module
    size = size_for(student, (SIDE, SIDE))
    shapes = teacher.backbone.output_shape()
    methods: list[Any] = list(model.methods.values())

    def views(levels: Any, teacher_levels: Any) -> tuple[View, View, Truth]:
        cut = (cut_to(teacher_levels[name], size, shapes[name].stride) for name in model.levels)
        return View([levels[name] for name in model.levels]), View(list(cut)), Truth()

    counted = [method for method in methods if method.needs == Need.LEVELS and not model.others]
    costs = [
        distillation_cost(
            student,
            _images(size),
            each.backbone,
            _images(size_for(each.backbone, size), each.precision),
            counted,
            views,
        )
        for each in (teacher, *(x.module for x in model.others))
    ]
    return None if None in costs else sum(x for x in costs if x is not None)


def _images(size: tuple[int, int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(IMAGES, 3, *size, dtype=dtype, device="meta")
