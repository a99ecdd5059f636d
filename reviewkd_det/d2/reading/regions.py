"""DKD on regions: the class logits of the box head, on the student's own sampled proposals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reviewkd_det.core import FrozenTeacher, decoupled_distillation_loss
from reviewkd_det.d2.reading.taps import Call, only_call

__all__ = ["BoxHead", "RegionLogits"]

Factory = Callable[[Any, Any], "RegionLogits"]


class RegionLogits(nn.Module):
    """The DKD loss of a two-stage detector's box head (Zhao et al., CVPR 2022).

    The student's sampled proposals are pooled from the teacher's pyramid too, and the logits of
    both box heads are compared with the proposals' assigned classes, background included.

    Args:
        alpha: weight of the target term; see `decoupled_distillation_loss`.
        beta: weight of the non-target term.
        temperature: of both softmaxes.
    """

    taps = ("roi_heads", "roi_heads.box_pooler", "roi_heads.box_predictor")
    warmup_iters = 0

    def __init__(self, *, alpha: float, beta: float, temperature: float) -> None:
        super().__init__()
        self.settings = {"alpha": alpha, "beta": beta, "temperature": temperature}

    @classmethod
    def factory(
        cls, *, alpha: float = 1.0, beta: float = 0.25, temperature: float = 1.0
    ) -> Factory:
        """What builds the method from the student detector and the `TeacherBackbone`.

        Raises:
            ValueError: the temperature is not positive; when called, one side has no single box
                head, or they tell different numbers of classes apart.
        """
        if temperature <= 0:
            raise ValueError(f"MODEL.DISTILL.DKD.TEMPERATURE must be positive; got {temperature}")

        def build(student: Any, teacher: Any) -> RegionLogits:
            ours = _class_count(getattr(student, "roi_heads", None), "student")
            theirs = _class_count(teacher.roi_heads, "teacher")
            if ours != theirs:
                raise ValueError(
                    "student and teacher must tell the same classes apart for DKD; got "
                    f"{ours} and {theirs} logits, background included"
                )
            return cls(alpha=alpha, beta=beta, temperature=temperature)

        return build

    def forward(
        self,
        calls: Mapping[str, list[Call]],
        teacher: FrozenTeacher,
        teacher_levels: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Compute `loss_dkd`, shape (), the mean over all sampled proposals."""
        proposals, _ = only_call(calls, "roi_heads").output
        logits, _ = only_call(calls, "roi_heads.box_predictor").output  # (R, classes + 1)
        with torch.no_grad():
            # As pooled: Detectron2 may replace the proposals' boxes by predicted ones afterwards.
            boxes = only_call(calls, "roi_heads.box_pooler").inputs[1]
            teacher_logits = teacher.module.region_logits(teacher_levels, boxes)
        target = torch.cat([x.gt_classes for x in proposals])  # (R,)
        loss = decoupled_distillation_loss(logits, teacher_logits, target, **self.settings)
        return {"loss_dkd": loss}


def _class_count(roi_heads: Any, side: str) -> int:
    predictor: Any = getattr(roi_heads, "box_predictor", None)
    if not isinstance(getattr(predictor, "cls_score", None), nn.Linear):
        found = "no box head" if predictor is None else type(predictor).__name__
        raise ValueError(f"the {side} must have one box head for DKD; got {found}")
    if not hasattr(roi_heads, "box_pooler"):
        raise ValueError(
            f"the {side} must have StandardROIHeads for DKD; got {type(roi_heads).__name__}"
        )
    return int(predictor.cls_score.out_features)


class BoxHead(nn.Module):
    """The part of Detectron2's `StandardROIHeads` that turns boxes into class logits.

    Args:
        roi_heads: the teacher's; its other heads are left behind.

    Raises:
        ValueError: it is not of that kind.
    """

    def __init__(self, roi_heads: Any) -> None:
        super().__init__()
        _class_count(roi_heads, "teacher")
        self.in_features: Sequence[str] = roi_heads.box_in_features
        self.box_pooler = roi_heads.box_pooler
        self.box_head = roi_heads.box_head
        self.box_predictor = roi_heads.box_predictor

    def forward(self, levels: Mapping[str, Tensor], boxes: Sequence[Any]) -> Tensor:
        """Class logits of the boxes, (R, classes + 1)."""
        pooled = self.box_pooler([levels[name] for name in self.in_features], boxes)
        scores, _ = self.box_predictor(self.box_head(pooled))
        return scores
