"""What a detector and its teacher give distillation methods.

Shapes: N images, those without labels last; level l is (N, C_l, H / stride_l, W / stride_l).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

from torch import Tensor

from reviewkd_det.common.distill.build import Customer
from reviewkd_det.core import FrozenTeacher, Level, Need, Side, Truth, View, pair_by_name
from reviewkd_det.d2.keys import ONE_STAGE, TWO_STAGE
from reviewkd_det.d2.reading import one_stage, two_stage
from reviewkd_det.d2.reading.fields import Heads
from reviewkd_det.d2.reading.taps import Call
from reviewkd_det.d2.reading.unlabeled import BackboneCall
from reviewkd_det.d2.teacher.dense_head import is_dense
from reviewkd_det.d2.teacher.heads import HEADS

__all__ = [
    "KEY",
    "ONE_STAGE_GIVES",
    "TWO_STAGE_GIVES",
    "Views",
    "add_heads",
    "describe_customer",
    "describe_each",
    "describe_sides",
    "read_levels",
    "recorded",
]

KEY = "MODEL.DISTILL"
ONE_STAGE_GIVES, TWO_STAGE_GIVES = one_stage.GIVES, two_stage.GIVES


class Views(NamedTuple):
    """What methods compare in one batch."""

    student: View
    teacher: View
    truth: Truth


def describe_customer(student: Any) -> Customer:
    """What a student detector gives methods: levels always, and what its heads give."""
    roi_heads = getattr(student, "roi_heads", None)
    name = type(student).__name__
    if roi_heads is not None:
        name += f" with {type(roi_heads).__name__}"
    uses = ONE_STAGE if roi_heads is None else TWO_STAGE
    return Customer(name, Need.LEVELS | _reader(student).gives(student), uses, KEY, "iters")


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
        ValueError: levels are needed and cannot be paired, see `pair_by_name`, or heads are needed
            and are of two kinds or have other anchors.
    """
    sides = Side(), Side()
    if Need.LEVELS in needs:
        ours, theirs = (_levels(model.backbone) for model in (student, teacher))
        names = pair_by_name(
            list(ours.values()), list(theirs.values()), in_features, f"{KEY}.IN_FEATURES"
        )
        sides = Side(tuple(ours[x] for x in names)), Side(tuple(theirs[x] for x in names))
    if needs & HEADS:
        sides = _reader(student).add_to_sides(student, teacher.heads, needs, sides)
    return sides


def describe_each(
    student: Any, teachers: Sequence[Any], in_features: Sequence[str], needs: Need
) -> list[Side]:
    """What is known of a student and, after it, of each of its teachers; see `describe_sides`.

    Raises:
        ValueError: teachers differ in the levels that they have in common with the student.
    """
    pairs = [describe_sides(student, teacher, in_features, needs) for teacher in teachers]
    names = {tuple(level.name for level in theirs.levels) for _, theirs in pairs}
    if len(names) > 1:
        raise ValueError(
            f"{KEY}.IN_FEATURES must name levels that all teachers have; they have "
            + " and ".join(", ".join(x) for x in sorted(names))
        )
    return [pairs[0][0], *(theirs for _, theirs in pairs)]


def _reader(student: Any) -> ModuleType:
    """What reads the heads of a student."""
    return one_stage if is_dense(student) else two_stage


def _levels(backbone: Any) -> dict[str, Level]:
    return {
        name: Level(name, shape.channels, stride=shape.stride)
        for name, shape in backbone.output_shape().items()
    }


@contextmanager
def recorded(student: Any, needs: Need) -> Iterator[Mapping[str, list[Call]]]:
    """Record what `add_heads` reads of a student's heads while the context lasts."""
    if not needs & HEADS:
        yield {}
    else:
        with _reader(student).recorded(student, needs) as calls:
            yield calls


def read_levels(
    names: Sequence[str], backbone: BackboneCall, teacher_levels: Mapping[str, Tensor]
) -> Views:
    """Read what the methods compare of the backbones.

    Args:
        names: names of the levels compared, from high to low resolution.
        backbone: the call of the student's backbone.
        teacher_levels: levels of the teacher by name.
    """
    ours, theirs = (
        tuple(levels[name] for name in names) for levels in (backbone.levels, teacher_levels)
    )
    return Views(View(ours), View(theirs), Truth(size=backbone.size))


def add_heads(
    views: Views,
    student: Any,
    calls: Mapping[str, list[Call]],
    teacher: FrozenTeacher,
    teacher_levels: Mapping[str, Tensor],
    labeled: Sequence[Mapping[str, Any]],
    needs: Need,
) -> Views:
    """Add what the methods compare of the heads, and the true boxes where they are needed.

    The student's sampled proposals are pooled from the teacher's pyramid too, and a dense teacher
    has the student's anchors, so rows of logits are those of the same boxes.

    Args:
        views: what `read_levels` read.
        student: the student.
        calls: what `recorded` gave.
        teacher: the frozen `TeacherBackbone`.
        teacher_levels: levels of the teacher by name.
        labeled: the images with labels, Detectron2's standard input.
        needs: what the methods need together.
    """
    ours, theirs, truth = views
    if Need.BOXES in needs:
        device = next(student.parameters()).device
        boxes = [x["instances"].gt_boxes.tensor.to(device) for x in labeled]
        truth = truth._replace(boxes=boxes)
    if not needs & HEADS:
        return Views(ours, theirs, truth)
    levels = {name: level[: len(labeled)].float() for name, level in teacher_levels.items()}
    heads = Heads(student, calls, teacher.module.heads, levels, needs)
    found = _reader(student).read(heads)
    return Views(
        ours._replace(**found.student),
        theirs._replace(**found.teacher),
        truth._replace(**found.truth),
    )
