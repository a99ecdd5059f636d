"""What the dense head of a one-stage detector and of its teacher give.

Shapes: N images with labels; R anchors that are assigned an object; K object classes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from reviewkd_det.core import Branch, Need, Side
from reviewkd_det.d2.reading.fields import Fields, Heads
from reviewkd_det.d2.reading.taps import Call, only_call, returned, tapped
from reviewkd_det.d2.teacher.anchors import check_same_anchors, join_rows
from reviewkd_det.d2.teacher.dense_head import SUBNETS, branch_channels, cut_of, has_branches
from reviewkd_det.d2.teacher.heads import TeacherHeads

__all__ = ["GIVES", "add_to_sides", "gives", "read", "recorded"]

OF_HEAD = Need.LOGITS | Need.TARGET | Need.BOXES
GIVES = Need.LEVELS | OF_HEAD | Need.BRANCHES
ANCHORS = "label_anchors"  # the method by which a one-stage detector labels its anchors


def gives(student: Any) -> Need:
    """What the dense head of a student gives methods."""
    return OF_HEAD | (Need.BRANCHES if has_branches(student) else Need(0))


def add_to_sides(
    student: Any, heads: TeacherHeads, needs: Need, sides: tuple[Side, Side]
) -> tuple[Side, Side]:
    """Add to what is known of both networks what is known of their heads.

    Raises:
        ValueError: the teacher's head is of another kind or has other anchors.
    """
    ours, theirs = sides
    words = (needs & (Need.LOGITS | Need.BRANCHES)).words
    head = heads.dense
    if head is None:
        raise ValueError(
            f"the teacher must have a dense head, as the student has, for methods on {words}; got "
            "one box head"
        )
    check_same_anchors(student, head, f"methods on {words}")
    if Need.BRANCHES in needs:
        if not head.has_branches:
            raise ValueError(
                "the teacher's head must have branches as Detectron2's RetinaNetHead has, for "
                f"methods on {words}; got {type(head.head).__name__}"
            )
        ours = ours._replace(branch=branch_channels(student.head))
        theirs = theirs._replace(branch=branch_channels(head.head))
    ours = ours._replace(classes=student.num_classes, binary=True)
    return ours, theirs._replace(classes=head.given_classes, binary=True)


def _taps(student: Any) -> list[str]:
    """The layers whose output are the maps of the branches of classes and of boxes."""
    return [f"head.{name}.{cut_of(getattr(student.head, name)) - 1}" for name in SUBNETS]


@contextmanager
def recorded(student: Any, needs: Need) -> Iterator[Mapping[str, list[Call]]]:
    """Record what `read` reads of a student while the context lasts."""
    names = ["head", *(_taps(student) if Need.BRANCHES in needs else ())]
    with tapped(student, names) as calls, returned(student, ANCHORS) as labels:
        yield {**calls, ANCHORS: labels}


def read(heads: Heads) -> Fields:
    """Read what the heads gave; the teacher's has the student's anchors."""
    student, calls, teacher, levels, needs = heads
    assert teacher.dense is not None
    labels = torch.stack(only_call(calls, ANCHORS).output[0])  # (N, anchors)
    classes = teacher.dense.given_classes
    has_object = (labels >= 0) & (labels < student.num_classes)
    fields = Fields(truth={"target": labels[has_object], "objects": int(has_object.sum())})
    if Need.LOGITS in needs:
        logits = join_rows(only_call(calls, "head").output[0], classes)  # (N, anchors, K)
        with torch.no_grad():
            taught = teacher.dense(levels)
        _check_as_many(logits, taught)
        fields.student["logits"] = logits[has_object]
        fields.teacher["logits"] = taught[has_object]
    if Need.BRANCHES in needs:
        ours = [[call.output for call in calls[name]] for name in _taps(student)]
        branches = (Branch(maps, _nothing_behind) for maps in ours)
        fields.student["classes"], fields.student["boxes"] = branches
        fields.teacher["classes"], fields.teacher["boxes"] = teacher.dense.branches(levels)
    return fields


def _check_as_many(logits: Tensor, taught: Tensor) -> None:
    if logits.shape != taught.shape:
        raise RuntimeError(
            "student and teacher must have as many anchors in a batch; got "
            f"{logits.shape[1]} and {taught.shape[1]}"
        )


def _nothing_behind(maps: Any) -> Tensor:
    raise RuntimeError("the rest of a student's branch is not read")
