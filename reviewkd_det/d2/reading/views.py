"""What a detector and its teacher give distillation methods.

Shapes: N images, those without labels last; level l is (N, C_l, H / stride_l, W / stride_l);
R rows of the images with labels: sampled proposals, or anchors that are assigned an object; K
object classes; D features of a proposal.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reviewkd_det.common.distill.build import Customer
from reviewkd_det.core import FrozenTeacher, Level, Need, Side, Truth, View, pair_by_name
from reviewkd_det.d2.config import ONE_STAGE, TWO_STAGE
from reviewkd_det.d2.reading.taps import Call, only_call, returned, tapped
from reviewkd_det.d2.reading.unlabeled import BackboneCall
from reviewkd_det.d2.teacher.box_head import count_classes
from reviewkd_det.d2.teacher.dense_head import check_same_anchors, is_dense, join_rows

__all__ = [
    "BOX_HEAD_GIVES",
    "DENSE_HEAD_GIVES",
    "KEY",
    "ROWS",
    "Views",
    "describe_customer",
    "describe_sides",
    "read_views",
    "recorded",
]

KEY = "MODEL.DISTILL"
BOX_HEAD = ("roi_heads", "roi_heads.box_pooler", "roi_heads.box_predictor")
DENSE_HEAD_GIVES = Need.LEVELS | Need.LOGITS | Need.TARGET | Need.BOXES
BOX_HEAD_GIVES = DENSE_HEAD_GIVES | Need.VECTOR
ROWS = Need.LOGITS | Need.VECTOR  # what is read of a head, row by row
ANCHORS = "label_anchors"  # the method by which a one-stage detector labels its anchors


Rows = tuple[Tensor, Tensor | None]  # logits and, of a box head, features


class Views(NamedTuple):
    """What methods compare in one batch."""

    student: View
    teacher: View
    truth: Truth


def describe_customer(student: Any) -> Customer:
    """What a student detector gives methods.

    Levels always; of a detector with one box head the class logits and features of the sampled
    proposals, and the classes that these are assigned, background included; of one with a dense
    head the logits and classes of the anchors that are assigned an object; of both the true boxes.
    """
    roi_heads = getattr(student, "roi_heads", None)
    gives, name = Need.LEVELS, type(student).__name__
    if roi_heads is not None:
        name += f" with {type(roi_heads).__name__}"
    if count_classes(roi_heads) is not None:
        gives = BOX_HEAD_GIVES
    elif is_dense(student):
        gives = DENSE_HEAD_GIVES
    elif roi_heads is not None:
        gives |= Need.BOXES
    uses = ONE_STAGE if roi_heads is None else TWO_STAGE
    return Customer(name, gives, uses, KEY, "iters")


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
        ValueError: levels are needed and cannot be paired, see `pair_by_name`, or logits are needed
            and the heads are of two kinds or have other anchors.
    """
    levels: tuple[tuple[Level, ...], tuple[Level, ...]] = ((), ())
    if Need.LEVELS in needs:
        ours, theirs = (_levels(model.backbone) for model in (student, teacher))
        names = pair_by_name(
            list(ours.values()), list(theirs.values()), in_features, f"{KEY}.IN_FEATURES"
        )
        levels = tuple(ours[name] for name in names), tuple(theirs[name] for name in names)
    if not needs & ROWS:
        return Side(levels[0]), Side(levels[1])
    binary = is_dense(student)
    head = teacher.dense_head if binary else teacher.roi_heads
    if head is None:
        kinds = ["one box head", "a dense head"]
        ours_kind, other = kinds[binary], kinds[not binary]
        raise ValueError(
            f"the teacher must have {ours_kind}, as the student has, for methods on logits; got "
            f"{other}"
        )
    if binary:
        check_same_anchors(student, head)
    classes = student.num_classes if binary else count_classes(getattr(student, "roi_heads", None))
    theirs = head.given_classes if binary else head.classes
    if binary:
        return Side(levels[0], classes, binary), Side(levels[1], theirs, binary)
    width = student.roi_heads.box_predictor.cls_score.in_features
    return (
        Side(levels[0], classes, vector=width),
        Side(levels[1], theirs, vector=head.features),
    )


def _levels(backbone: Any) -> dict[str, Level]:
    return {
        name: Level(name, shape.channels, stride=shape.stride)
        for name, shape in backbone.output_shape().items()
    }


@contextmanager
def recorded(student: Any, needs: Need) -> Iterator[Mapping[str, list[Call]]]:
    """Record what `read_views` reads of a student's heads while the context lasts."""
    if not needs & ROWS:
        yield {}
    elif is_dense(student):
        with tapped(student, ["head"]) as calls, returned(student, ANCHORS) as labels:
            yield {**calls, ANCHORS: labels}
    else:
        with tapped(student, BOX_HEAD) as calls:
            yield calls


def read_views(
    names: Sequence[str],
    student: BackboneCall,
    calls: Mapping[str, list[Call]],
    teacher: FrozenTeacher,
    teacher_levels: Mapping[str, Tensor],
    boxes: Sequence[Tensor] | None = None,
) -> Views:
    """Read what the methods compare.

    The student's sampled proposals are pooled from the teacher's pyramid too, and a dense teacher
    has the student's anchors, so rows of logits are those of the same boxes.

    Args:
        names: names of the levels compared, from high to low resolution.
        student: the call of the student's backbone.
        calls: what `recorded` gave.
        teacher: the frozen `TeacherBackbone`.
        teacher_levels: levels of the teacher by name.
        boxes: true boxes of each image with labels, (B, 4) in pixels; None where it has none.
    """
    ours, theirs = (
        tuple(levels[name] for name in names) for levels in (student.levels, teacher_levels)
    )
    truth = Truth(boxes=boxes, size=student.size)
    if not calls:
        return Views(View(ours), View(theirs), truth)
    read = _read_anchors if "head" in calls else _read_proposals
    rows, teacher_rows, target = read(calls, teacher.module, teacher_levels)
    return Views(View(ours, *rows), View(theirs, *teacher_rows), truth._replace(target=target))


def _read_proposals(
    calls: Mapping[str, list[Call]], teacher: Any, teacher_levels: Mapping[str, Tensor]
) -> tuple[Rows, Rows, Tensor]:
    """Logits of student and teacher, (R, K + 1), with features, and the rows' classes, (R,)."""
    proposals, _ = only_call(calls, "roi_heads").output
    predicted = only_call(calls, "roi_heads.box_predictor")
    logits, _ = predicted.output  # (R, K + 1)
    features = next(iter(predicted.inputs.values())).flatten(1)  # (R, D)
    # As pooled: Detectron2 may replace the proposals' boxes by predicted ones afterwards.
    boxes = only_call(calls, "roi_heads.box_pooler").inputs["box_lists"]
    with torch.no_grad():
        taught = teacher.read_regions(teacher_levels, boxes)
    return (logits, features), taught, torch.cat([x.gt_classes for x in proposals])


def _read_anchors(
    calls: Mapping[str, list[Call]], teacher: Any, teacher_levels: Mapping[str, Tensor]
) -> tuple[Rows, Rows, Tensor]:
    """Logits of student and teacher, (R, K), and the classes of the rows, (R,)."""
    labels = torch.stack(only_call(calls, ANCHORS).output[0])  # (N, anchors)
    classes = teacher.dense_head.given_classes
    logits = join_rows(only_call(calls, "head").output[0], classes)  # (N, anchors, K)
    with torch.no_grad():
        teacher_logits = teacher.anchor_logits(teacher_levels, len(labels))
    if logits.shape != teacher_logits.shape:
        raise RuntimeError(
            "student and teacher must have as many anchors in a batch; got "
            f"{logits.shape[1]} and {teacher_logits.shape[1]}"
        )
    has_object = (labels >= 0) & (labels < classes)
    rows = (logits[has_object], None), (teacher_logits[has_object], None)
    return *rows, labels[has_object]
