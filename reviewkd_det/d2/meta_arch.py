"""A student detector that learns from a teacher while it trains."""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn

from reviewkd_det.common.config.aliases import move_aliases
from reviewkd_det.common.config.methods import own_settings
from reviewkd_det.common.distill.build import build_methods, needs_of, plan_methods
from reviewkd_det.core import (
    FrozenTeacher,
    Need,
    Weighted,
    find_method,
    is_training_step,
    without_traces,
)
from reviewkd_det.d2.backbone_only import BackboneOnly
from reviewkd_det.d2.config import get_config, plain_config
from reviewkd_det.d2.keys import ALIASES
from reviewkd_det.d2.labels.soft_losses import check_soft, soft_losses
from reviewkd_det.d2.reading.images import shrink_to_fit
from reviewkd_det.d2.reading.taps import Call, only_call
from reviewkd_det.d2.reading.unlabeled import BackboneCall, joined_backbone
from reviewkd_det.d2.reading.views import (
    KEY,
    Views,
    add_heads,
    describe_customer,
    describe_each,
    read_levels,
    recorded,
)
from reviewkd_det.d2.registered import names_checked
from reviewkd_det.d2.step_log import StepLog
from reviewkd_det.d2.teacher.build import TeacherLoader, other_teachers

__all__ = ["DistilledDetector"]

Losses = dict[str, Tensor]


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
        teacher: a frozen `TeacherBackbone`, or what builds one with the parts that the methods
            need; None where there is no method.
        others: further teachers, given as the first; each method learns from all of them, and its
            loss is the mean.
        methods: by method's name its settings, `warmup_iters`, `decay_iters` and `decay_share`, by
            lower-case name; what is left out has its default.
        in_features: names of the levels compared; empty means every level both backbones output.
        soft_labels: how a teacher's labels count in the student's losses: "" in full, "score" or
            "probabilities"; see `soft_losses`.
        max_iter: iterations of the training, which a `decay_share` is a part of; 0 where it is not
            known, so that no weight falls by itself.

    Raises:
        ValueError: there are methods but no teacher, the student has no backbone to read, or a
            method does not fit.
    """

    @configurable
    def __init__(
        self,
        *,
        student: nn.Module,
        teacher: FrozenTeacher | Callable[[Need], FrozenTeacher] | None = None,
        others: Sequence[FrozenTeacher | Callable[[Need], FrozenTeacher]] = (),
        methods: Mapping[str, Mapping[str, Any]] | None = None,
        in_features: Sequence[str] = (),
        soft_labels: str = "",
        max_iter: int = 0,
    ) -> None:
        super().__init__()
        check_soft(student, soft_labels)
        self.student: Any = student
        self.soft_labels = soft_labels
        self.teacher: FrozenTeacher | None = None
        self.others = nn.ModuleList()
        self.methods = nn.ModuleDict()
        self.weighted: dict[str, Weighted] = {}
        self.levels: tuple[str, ...] = ()
        self.step = 0  # of the training, for the warm-ups
        if not methods:
            return
        if teacher is None:
            raise ValueError(f"a teacher must be given for {', '.join(methods)}; got None")
        if not isinstance(getattr(student, "backbone", None), nn.Module):
            raise ValueError(
                f"student must have a module named 'backbone'; got {type(student).__name__}"
            )
        plans = plan_methods(methods, describe_customer(student))
        length = 0 if isinstance(student, BackboneOnly) else max_iter  # to its end by methods alone
        needs = needs_of(plans)
        # On the CPU; a baseline starts with the same random state.
        with torch.random.fork_rng(devices=[]):
            teachers = [
                each if isinstance(each, FrozenTeacher) else each(needs)
                for each in (teacher, *others)
            ]
        self.teacher, self.others = teachers[0], nn.ModuleList(teachers[1:])
        sides = describe_each(student, [x.module for x in teachers], in_features, needs)
        with torch.random.fork_rng(devices=[]):
            self.weighted = build_methods(plans, *sides[:2], others=sides[2:], length=length)
        self.methods.update({name: weighted.method for name, weighted in self.weighted.items()})
        self.levels = tuple(level.name for level in sides[0].levels)
        self.log = StepLog(self.weighted, self.levels, self.teacher)
        self._needs = needs

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read what is built from a config."""
        cfg = cfg.clone()
        cfg.defrost()
        move_aliases(cfg, ALIASES, get_config())
        settings = cfg.MODEL.DISTILL
        if settings.STUDENT_META_ARCHITECTURE == "DistilledDetector":
            raise ValueError(
                f"{KEY}.STUDENT_META_ARCHITECTURE must name the student's own detector; "
                "got DistilledDetector"
            )
        for name in settings.METHODS:
            find_method(name, f"{KEY}.METHODS")
        with names_checked(cfg):
            student = build_model(plain_config(cfg))
        return {
            "student": student,
            "teacher": TeacherLoader.from_config(cfg),
            "others": [TeacherLoader.from_config(x) for x in other_teachers(cfg)],
            "methods": {
                name: own_settings(settings, name, ALIASES, KEY) for name in settings.METHODS
            },
            "in_features": settings.IN_FEATURES,
            "soft_labels": settings.TEACHER_LABELS.SOFT if settings.TEACHER_LABELS.ENABLED else "",
            "max_iter": cfg.SOLVER.MAX_ITER,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Call the student; in training mode, add the methods' losses to its own.

        A call in training mode that is no training step, under `torch.no_grad()`, gives the losses
        of the last step's warm-up, leaves no trace in the methods and the log, and needs no
        `EventStorage`.

        Args:
            batched_inputs: Detectron2's standard input; in training some may be `unlabeled`.

        Returns:
            A dict of losses in training mode, the student's predictions otherwise.

        Raises:
            RuntimeError: the student did not call its backbone exactly once.
        """
        if not self.training:
            return self.student(batched_inputs)
        if not is_training_step(self):
            with EventStorage(self.step), without_traces(self.methods):
                own, distilled, _ = self._losses(batched_inputs)
            return {**own, **distilled}
        own, distilled, parts = self._losses(batched_inputs)
        if self.methods:
            self.log.write(self.step, own, distilled, parts)
        return {**own, **distilled}

    def _losses(self, batched_inputs: list[dict[str, Any]]) -> tuple[Losses, Losses, Losses]:
        """The student's own losses, those of the methods, and the latter's parts by level."""
        labeled = [x for x in batched_inputs if not x.get("unlabeled")]
        if is_training_step(self) and self.methods:
            self.step = get_event_storage().iter
        active = {k: x for k, x in self.weighted.items() if not x.has_ended(self.step)}
        if not active:
            with soft_losses(self.student, labeled, self.soft_labels):
                own = self.student(labeled)
            return own, self._ended(active), {}
        assert self.teacher is not None
        unlabeled = [x["image"] for x in batched_inputs if x.get("unlabeled")]
        with (
            soft_losses(self.student, labeled, self.soft_labels),
            recorded(self.student, self._needs) as calls,
            joined_backbone(self.student, unlabeled) as backbone_calls,
        ):
            own = dict(self.student(labeled))
        backbone = only_call({"backbone": backbone_calls}, "backbone")
        images = [x["image"] for x in labeled]
        images += [shrink_to_fit(x, backbone.size) for x in unlabeled]
        views = self._read(backbone, images, calls, labeled)
        distilled = self._ended(active)
        parts: Losses = {}
        total = torch.stack(list(own.values())).sum() if own else None
        points = [x for x in backbone.levels.values() if x.requires_grad]
        for name, weighted in active.items():
            key, found = f"loss_{name.lower()}", weighted.method(*views)
            stacked = torch.stack(list(found.values()))  # (parts,)
            weighted.measure(total, stacked.sum(), points)
            shares = weighted.factor(self.step) * stacked
            distilled[key] = shares.sum()
            named = zip(found, shares.detach(), strict=True)
            parts |= {f"{key}/{part}": share for part, share in named if part}
        if is_training_step(self):
            named_losses = {name: distilled[f"loss_{name.lower()}"] for name in active}
            self.log.measure(self.step, views, total, named_losses, points)
        return own, distilled, parts

    def _read(
        self,
        backbone: BackboneCall,
        images: Sequence[Tensor],
        calls: Mapping[str, list[Call]],
        labeled: Sequence[Mapping[str, Any]],
    ) -> Views:
        """What the methods compare; of several teachers the first one's view has the others'."""
        found = []
        for each in (self.teacher, *self.others):
            assert isinstance(each, FrozenTeacher)
            levels = each(images, backbone.size)
            views = read_levels(self.levels, backbone, levels)
            found.append(add_heads(views, self.student, calls, each, levels, labeled, self._needs))
        first, *others = found
        return first._replace(
            teacher=first.teacher._replace(others=tuple(x.teacher for x in others))
        )

    def _ended(self, active: Container[str]) -> Losses:
        """The losses of the methods that have ended."""
        like = next(self.student.parameters())
        ended = {k: x for k, x in self.weighted.items() if k not in active}
        return {f"loss_{name.lower()}": x.nothing(like) for name, x in ended.items()}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The student's state dict."""
        return self.student.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the student's state dict."""
        return self.student.load_state_dict(*args, **kwargs)
