"""What a run says before its first step."""

import logging
from typing import Any

from detectron2.utils import comm
from torch import nn

from reviewkd_det.common.console.commands import shown_path
from reviewkd_det.common.distill.cost import distillation_cost
from reviewkd_det.d2.meta_arch import DistilledDetector
from reviewkd_det.d2.reading.levels import PyramidReview
from reviewkd_det.d2.runs.launch import unwrapped

__all__ = ["say_start", "start_line"]


def say_start(model: nn.Module, teacher: str = "") -> None:
    """Log `start_line` in the main process.

    Args:
        model: what is trained, in training mode; in several processes as they wrap it.
        teacher: its config, as the run's config names it.
    """
    if comm.is_main_process():
        logging.getLogger(__name__).info("%s", start_line(unwrapped(model), teacher))


def start_line(model: nn.Module, teacher: str = "") -> str:
    """What is trained, from what it learns, and what that costs, in a line."""
    student: Any = model.student if isinstance(model, DistilledDetector) else model
    name = f"{type(student).__name__} ({_parameters(student)} parameters)"
    if not isinstance(model, DistilledDetector) or model.teacher is None:
        return f"Training {name} without a teacher"
    module = model.teacher.module
    backbone = f"backbone {_parameters(getattr(module, 'backbone', module))}"
    source = f"{shown_path(teacher)} ({backbone})" if teacher else f"a teacher ({backbone})"
    methods = " and ".join(_method(*item) for item in model.methods.items())
    line = (
        f"Distilling {name} from {source} with {methods}; "
        f"{_parameters(model.methods)} parameters more in training only"
    )
    cost = distillation_cost(model)
    if cost is None:
        return line
    return (
        f"{line}; for each image teacher and fusions add {cost:.2f} times the multiply-adds of the "
        "student's backbone and pyramid (forward and backward; heads not counted)"
    )


def _method(name: str, method: nn.Module) -> str:
    levels = method.in_features if isinstance(method, PyramidReview) else ()
    return f"{name} at {', '.join(levels)}" if levels else name


def _parameters(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,}"
