"""What a detector and its teacher give distillation methods.

Shapes: N images, those without labels last; level l is (N, C_l, H / stride_l, W / stride_l);
R sampled proposals of the images with labels, K object classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reviewkd_det.common.distill.build import Customer
from reviewkd_det.core import FrozenTeacher, Level, Need, Side, Truth, View, pair_by_name
from reviewkd_det.d2.config import ONE_STAGE, TWO_STAGE
from reviewkd_det.d2.reading.taps import Call, only_call
from reviewkd_det.d2.reading.unlabeled import BackboneCall
from reviewkd_det.d2.teacher.box_head import count_classes

__all__ = ["KEY", "Views", "describe_customer", "describe_sides", "read_views", "taps_for"]

KEY = "MODEL.DISTILL"
BOX_HEAD = ("roi_heads", "roi_heads.box_pooler", "roi_heads.box_predictor")


class Views(NamedTuple):
    """What methods compare in one batch."""

    student: View
    teacher: View
    truth: Truth


def describe_customer(student: Any) -> Customer:
    """What a student detector gives methods.

    Levels always; of a detector with one box head the class logits of the sampled proposals, and
    the classes that these are assigned, background included.
    """
    roi_heads = getattr(student, "roi_heads", None)
    gives, name = Need.LEVELS, type(student).__name__
    if roi_heads is not None:
        name += f" with {type(roi_heads).__name__}"
    if count_classes(roi_heads) is not None:
        gives |= Need.LOGITS | Need.TARGET
    uses = ONE_STAGE if roi_heads is None else TWO_STAGE
    return Customer(name, gives, uses, KEY, "warmup_iters")


def describe_sides(
    student: Any, teacher: Any, in_features: Sequence[str], needs: Need
) -> tuple[Side, Side]:
    """What is known of a student and a `TeacherBackbone` before the first batch.

    Args:
        student: a detector with a backbone.
        teacher: `TeacherBackbone` that the student learns from.
        in_features: names of the levels compared; empty means every level both have.
        needs: what the methods need together.

    Raises:
        ValueError: levels are needed and cannot be paired, see `pair_by_name`.
    """
    levels: tuple[tuple[Level, ...], tuple[Level, ...]] = ((), ())
    if Need.LEVELS in needs:
        ours, theirs = (_levels(model.backbone) for model in (student, teacher))
        names = pair_by_name(
            list(ours.values()), list(theirs.values()), in_features, f"{KEY}.IN_FEATURES"
        )
        levels = tuple(ours[name] for name in names), tuple(theirs[name] for name in names)
    classes: tuple[int | None, int | None] = (None, None)
    if Need.LOGITS in needs:
        classes = count_classes(getattr(student, "roi_heads", None)), teacher.roi_heads.classes
    return Side(levels[0], classes[0]), Side(levels[1], classes[1])


def _levels(backbone: Any) -> dict[str, Level]:
    return {
        name: Level(name, shape.channels, stride=shape.stride)
        for name, shape in backbone.output_shape().items()
    }


def taps_for(needs: Need) -> tuple[str, ...]:
    """The modules of the student whose calls `read_views` reads."""
    return BOX_HEAD if Need.LOGITS in needs else ()


def read_views(
    names: Sequence[str],
    student: BackboneCall,
    calls: Mapping[str, list[Call]],
    teacher: FrozenTeacher,
    teacher_levels: Mapping[str, Tensor],
) -> Views:
    """Read what the methods compare.

    The student's sampled proposals are pooled from the teacher's pyramid too, so rows of logits are
    those of the same boxes.

    Args:
        names: names of the levels compared, from high to low resolution.
        student: the call of the student's backbone.
        calls: the calls of `taps_for`.
        teacher: the frozen `TeacherBackbone`.
        teacher_levels: levels of the teacher by name.
    """
    ours, theirs = (
        tuple(levels[name] for name in names) for levels in (student.levels, teacher_levels)
    )
    if not calls:
        return Views(View(ours), View(theirs), Truth())
    proposals, _ = only_call(calls, "roi_heads").output
    logits, _ = only_call(calls, "roi_heads.box_predictor").output  # (R, K + 1)
    # As pooled: Detectron2 may replace the proposals' boxes by predicted ones afterwards.
    boxes = only_call(calls, "roi_heads.box_pooler").inputs["box_lists"]
    with torch.no_grad():
        teacher_logits = teacher.module.region_logits(teacher_levels, boxes)
    target = torch.cat([x.gt_classes for x in proposals])  # (R,)
    return Views(View(ours, logits), View(theirs, teacher_logits), Truth(target))
