"""A student detector that learns from a teacher while it trains."""

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from torch import Tensor, nn

from reviewkd_det.core import FrozenTeacher
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.review import PyramidReview
from reviewkd_det.d2.teacher import build_teacher

__all__ = ["DistilledDetector"]

METHODS = {"ReviewKD": PyramidReview}


@META_ARCH_REGISTRY.register()
class DistilledDetector(nn.Module):
    """An unmodified Detectron2 detector plus, in training, the losses of distillation methods.

    The student's pyramid is read by a forward hook on `student.backbone`, so any detector that
    calls its backbone once per training step works. In eval mode this is the student. Its state
    dict is the student's as well, so every checkpoint of it is a plain Detectron2 checkpoint;
    the methods' own parameters are in `methods.state_dict()`.

    Args:
        student: any Detectron2 detector with a `backbone`.
        teacher: a frozen `TeacherBackbone`; None where there is no method.
        methods: modules that take both pyramids (levels by name) and return a dict of losses.

    Raises:
        ValueError: there are methods but no teacher, or the student has no backbone to read.
    """

    @configurable
    def __init__(
        self,
        *,
        student: nn.Module,
        teacher: FrozenTeacher | None = None,
        methods: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.student: Any = student
        self.teacher = teacher
        self.methods = nn.ModuleDict(methods or {})
        if self.methods and teacher is None:
            raise ValueError(f"a teacher must be given for {', '.join(self.methods)}; got None")
        if self.methods and not isinstance(getattr(student, "backbone", None), nn.Module):
            raise ValueError(
                f"student must have a module named 'backbone'; got {type(student).__name__}"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build the student, then, leaving its random state as it was, teacher and methods."""
        settings = cfg.MODEL.DISTILL
        unknown = [name for name in settings.METHODS if name not in METHODS]
        if unknown:
            raise ValueError(
                f"MODEL.DISTILL.METHODS must name known methods; got {unknown[0]}; "
                f"known: {', '.join(METHODS)}"
            )
        if settings.STUDENT_META_ARCHITECTURE == "DistilledDetector":
            raise ValueError(
                "MODEL.DISTILL.STUDENT_META_ARCHITECTURE must name the student's own detector; "
                "got DistilledDetector"
            )
        student = build_model(plain_config(cfg))
        if not settings.METHODS:
            return {"student": student}
        with torch.random.fork_rng(devices=[]):  # all of it is built on the CPU
            teacher = build_teacher(cfg)
            backbones = student.backbone, teacher.module.backbone
            _check_divisibility(*backbones)
            shapes = [backbone.output_shape() for backbone in backbones]
            methods = {name: METHODS[name].from_config(cfg, *shapes) for name in settings.METHODS}
        return {"student": student, "teacher": teacher, "methods": methods}

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Call the student; in training, add the methods' losses to its own.

        Args:
            batched_inputs: Detectron2's standard input.

        Returns:
            A dict of losses in training, the student's predictions otherwise.

        Raises:
            RuntimeError: the student did not call its backbone exactly once.
        """
        if not self.training or not self.methods:
            return self.student(batched_inputs)
        calls: list[tuple[Tensor, dict[str, Tensor]]] = []
        hook = self.student.backbone.register_forward_hook(
            lambda module, args, kwargs, output: calls.append(
                (next(iter([*args, *kwargs.values()])), output)
            ),
            with_kwargs=True,
        )
        try:
            losses = dict(self.student(batched_inputs))
        finally:
            hook.remove()
        if len(calls) != 1:
            raise RuntimeError(
                f"student must call its backbone once per training step; got {len(calls)} calls"
            )
        (batch, student_levels), *_ = calls
        assert self.teacher is not None
        images = [x["image"] for x in batched_inputs]
        teacher_levels = self.teacher(images, tuple(batch.shape[-2:]))
        for method in self.methods.values():
            losses.update(method(student_levels, teacher_levels))
        return losses

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The student's state dict."""
        return self.student.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the student's state dict."""
        return self.student.load_state_dict(*args, **kwargs)


def _check_divisibility(student: Any, teacher: Any) -> None:
    ours, theirs = student.size_divisibility, teacher.size_divisibility
    if theirs > 1 and (ours < theirs or ours % theirs != 0):
        raise ValueError(
            "the student's padding must suit the teacher; got a student padded to multiples of "
            f"{ours} and a teacher that needs multiples of {theirs}"
        )
