"""A student detector that learns from a teacher while it trains."""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from reviewkd_det.core import FrozenTeacher
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.reading.images import joined_to_batch, shrink_to_fit
from reviewkd_det.d2.reading.levels import PyramidReview
from reviewkd_det.d2.reading.regions import RegionLogits
from reviewkd_det.d2.reading.taps import only_call, tapped
from reviewkd_det.d2.teacher.backbone import build_teacher

__all__ = ["DistilledDetector"]

LOWEST_RATIO, HIGHEST_RATIO = 0.01, 10  # of a method's loss to the student's own, at the start
WEIGHT_KEYS = {
    "loss_reviewkd": "MODEL.DISTILL.REVIEWKD.LOSS_WEIGHT, or set TEACHER_SCALE there to rms",
    "loss_dkd": "MODEL.DISTILL.DKD.ALPHA and BETA",
}
METHODS: dict[str, Any] = {"ReviewKD": PyramidReview, "DKD": RegionLogits}
Factory = Callable[[Any, Any], nn.Module]


@META_ARCH_REGISTRY.register()
class DistilledDetector(nn.Module):
    """An unmodified Detectron2 detector plus, in training, the losses of distillation methods.

    What a method needs of the student is read by forward hooks, so any detector that calls its
    backbone once per training step works. Images without labels, marked `unlabeled`, join the
    backbone's batch and take part in the methods alone. In eval mode this is the student. Its
    state dict is the student's as well, so every checkpoint of it is a plain Detectron2
    checkpoint; the methods' own parameters are in `methods.state_dict()`.

    Args:
        student: any Detectron2 detector with a `backbone`.
        teacher: a frozen `TeacherBackbone`; None where there is no method.
        methods: by name, what builds a method from the student and the `TeacherBackbone`.

    Raises:
        ValueError: there are methods but no teacher, or the student has no backbone to read.
    """

    @configurable
    def __init__(
        self,
        *,
        student: nn.Module,
        teacher: FrozenTeacher | None = None,
        methods: Mapping[str, Factory] | None = None,
    ) -> None:
        super().__init__()
        self.student: Any = student
        self.teacher = teacher
        self.methods = nn.ModuleDict()
        if not methods:
            return
        if teacher is None:
            raise ValueError(f"a teacher must be given for {', '.join(methods)}; got None")
        if not isinstance(getattr(student, "backbone", None), nn.Module):
            raise ValueError(
                f"student must have a module named 'backbone'; got {type(student).__name__}"
            )
        with torch.random.fork_rng(devices=[]):  # on the CPU; a baseline starts with the same state
            for name, make in methods.items():
                self.methods[name] = make(student, teacher.module)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build the student, then, leaving its random state as it was, the teacher."""
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
        with torch.random.fork_rng(devices=[]):
            teacher = build_teacher(cfg)
        methods = {name: _factory(name, settings[name.upper()]) for name in settings.METHODS}
        return {"student": student, "teacher": teacher, "methods": methods}

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Call the student; in training, add the methods' losses to its own.

        Args:
            batched_inputs: Detectron2's standard input; in training some may be `unlabeled`.

        Returns:
            A dict of losses in training, the student's predictions otherwise.

        Raises:
            RuntimeError: the student did not call its backbone exactly once.
        """
        if not self.training:
            return self.student(batched_inputs)
        labeled = [x for x in batched_inputs if not x.get("unlabeled")]
        if not self.methods:
            return self.student(labeled)
        assert self.teacher is not None
        unlabeled = [x["image"] for x in batched_inputs if x.get("unlabeled")]
        methods: list[Any] = list(self.methods.values())
        names = {"backbone"}.union(*(method.taps for method in methods))
        with tapped(self.student, sorted(names)) as calls, joined_to_batch(self.student, unlabeled):
            losses = dict(self.student(labeled))
        size = only_call(calls, "backbone").inputs[0].shape[-2:]
        images = [x["image"] for x in labeled] + [shrink_to_fit(x, size) for x in unlabeled]
        teacher_levels = self.teacher(images, tuple(size))
        distilled: dict[str, Tensor] = {}
        for method in methods:
            distilled.update(method(calls, self.teacher, teacher_levels))
        self._report_ratio(losses, distilled)
        return {**losses, **distilled}

    def _report_ratio(self, losses: dict[str, Tensor], distilled: dict[str, Tensor]) -> None:
        """Once, when all methods have their full weight: how their losses compare to the rest."""
        methods: list[Any] = list(self.methods.values())
        warmup_iters = max(method.warmup_iters for method in methods)
        if get_event_storage().iter != warmup_iters:
            return
        own = float(sum(loss.detach() for loss in losses.values()))
        for name, loss in distilled.items():
            ratio = float(loss.detach()) / own if own else math.inf
            logger = logging.getLogger(__name__)
            logger.info("%s is %.3g times the student's own losses at the start", name, ratio)
            key = WEIGHT_KEYS.get(name, "its weight")
            advice = "the student's own losses; where training suffers, change"
            if ratio > HIGHEST_RATIO:
                logger.warning("%s is more than %g times %s %s", name, HIGHEST_RATIO, advice, key)
            elif ratio < LOWEST_RATIO:
                logger.warning("%s is too small beside %s %s", name, advice, key)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The student's state dict."""
        return self.student.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the student's state dict."""
        return self.student.load_state_dict(*args, **kwargs)


def _factory(name: str, settings: CfgNode) -> Factory:
    """What builds a method with the settings of its own node, `MODEL.DISTILL.<METHOD>`."""
    return METHODS[name].factory(**{key.lower(): value for key, value in settings.items()})
