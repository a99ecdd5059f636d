"""What the heads of a two-stage detector and of its teacher give.

Shapes: R sampled proposals of the images with labels, P of them with an object; A sampled anchors;
K object classes; D features of a proposal; B numbers that code a box.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from detectron2.modeling.proposal_generator import RPN
from torch import Tensor

from reviewkd_det.core import BY_CLASS, Need, Side
from reviewkd_det.d2.reading.fields import Fields, Heads
from reviewkd_det.d2.reading.taps import Call, only_call, returned, tapped
from reviewkd_det.d2.teacher.anchors import check_same_anchors
from reviewkd_det.d2.teacher.box_head import box_coder, count_classes, of_classes
from reviewkd_det.d2.teacher.heads import ROWS, TeacherHeads
from reviewkd_det.d2.teacher.mask_head import has_masks
from reviewkd_det.d2.teacher.proposal_head import proposal_rows

__all__ = ["GIVES", "add_to_sides", "gives", "read", "recorded"]

OF_BOX_HEAD = Need.LOGITS | Need.TARGET | Need.VECTOR
GIVES = Need.LEVELS | Need.BOXES | OF_BOX_HEAD | Need.DELTAS | Need.MASKS | Need.OBJECTNESS

BOX_HEAD = ("roi_heads", "roi_heads.box_pooler", "roi_heads.box_predictor")
MASK_HEAD = ("roi_heads.mask_pooler", "roi_heads.mask_head")
RPN_HEAD = "proposal_generator.rpn_head"
MASKS, ANCHORS = "layers", "label_and_sample_anchors"  # methods whose results are read


def gives(student: Any) -> Need:
    """What the heads of a student give methods, by which of Detectron2's heads it has."""
    roi_heads: Any = getattr(student, "roi_heads", None)
    found = Need(0)
    if roi_heads is not None:
        found |= Need.BOXES
    if count_classes(roi_heads) is not None:
        found |= OF_BOX_HEAD
        if box_coder(roi_heads.box_predictor) is not None:
            found |= Need.DELTAS
    if has_masks(roi_heads):
        found |= Need.MASKS
    if isinstance(getattr(student, "proposal_generator", None), RPN):
        found |= Need.OBJECTNESS
    return found


def add_to_sides(
    student: Any, heads: TeacherHeads, needs: Need, sides: tuple[Side, Side]
) -> tuple[Side, Side]:
    """Add to what is known of both networks what is known of their heads.

    Raises:
        ValueError: the teacher's head is of another kind, or codes boxes in another way.
    """
    ours, theirs = sides
    if needs & ROWS:
        if heads.box is None:
            raise ValueError(
                "the teacher must have one box head, as the student has, for methods on "
                f"{(needs & ROWS).words}; got a dense head"
            )
        width = student.roi_heads.box_predictor.cls_score.in_features
        ours, theirs = ours._replace(vector=width), theirs._replace(vector=heads.box.features)
    if Need.DELTAS in needs:
        assert heads.box is not None
        _check_coders(student.roi_heads.box_predictor, heads.box.box_predictor)
    if Need.OBJECTNESS in needs:
        check_same_anchors(student.proposal_generator, heads.proposals, "methods on objectness")
        _check_coders(student.proposal_generator, heads.proposals)
    if needs & BY_CLASS:
        head = heads.box or heads.masks
        assert head is not None
        count = count_classes(student.roi_heads) or student.roi_heads.num_classes + 1
        ours, theirs = ours._replace(classes=count), theirs._replace(classes=head.objects + 1)
    return ours, theirs


def _check_coders(student: Any, teacher: Any) -> None:
    ours, theirs = (type(box_coder(head)).__name__ for head in (student, teacher))
    if ours != theirs:
        raise ValueError(
            "student and teacher must code boxes in one way for methods on regressed boxes; got "
            f"{ours} and {theirs}"
        )


@contextmanager
def recorded(student: Any, needs: Need) -> Iterator[Mapping[str, list[Call]]]:
    """Record what `read` reads of a student while the context lasts."""
    names = [*(BOX_HEAD if needs & ROWS else ()), *(MASK_HEAD if Need.MASKS in needs else ())]
    names += [RPN_HEAD] if Need.OBJECTNESS in needs else []
    with ExitStack() as recording:
        calls = dict(recording.enter_context(tapped(student, names)))
        if Need.MASKS in needs:
            masks = returned(student.roi_heads.mask_head, MASKS)
            calls[MASKS] = recording.enter_context(masks)
        if Need.OBJECTNESS in needs:
            labels = returned(student.proposal_generator, ANCHORS)
            calls[ANCHORS] = recording.enter_context(labels)
        yield calls


def read(heads: Heads) -> Fields:
    """Read what the heads gave; the teacher's pool the boxes that the student's have pooled."""
    fields = Fields()
    if heads.needs & ROWS:
        fields.add(_read_regions(heads))
    if Need.MASKS in heads.needs:
        fields.add(_read_masks(heads))
    if Need.OBJECTNESS in heads.needs:
        fields.add(_read_proposals(heads))
    return fields


def _read_regions(heads: Heads) -> Fields:
    student, calls, teacher, levels, needs = heads
    assert teacher.box is not None
    proposals, _ = only_call(calls, "roi_heads").output
    predicted = only_call(calls, "roi_heads.box_predictor")
    logits, deltas = predicted.output  # (R, K + 1) and (R, B) or (R, K * B)
    features = next(iter(predicted.inputs.values())).flatten(1)  # (R, D)
    # As pooled: Detectron2 may replace the proposals' boxes by predicted ones afterwards.
    boxes = only_call(calls, "roi_heads.box_pooler").inputs["box_lists"]
    with torch.no_grad():
        taught = teacher.box(levels, boxes)
    target = torch.cat([x.gt_classes for x in proposals])  # (R,)
    fields = Fields(
        {"logits": logits, "vector": features},
        {"logits": taught.logits, "vector": taught.features},
        {"target": target},
    )
    if Need.DELTAS not in needs:
        return fields
    coder, their_coder = (
        box_coder(x) for x in (student.roi_heads.box_predictor, teacher.box.box_predictor)
    )
    width, objects = len(coder.weights), teacher.box.objects
    has_object = (target >= 0) & (target < objects)
    classes = target[has_object]
    # An image without an object has no true boxes, not even for its background.
    true = [
        (image.gt_boxes if image.has("gt_boxes") else own).tensor
        for image, own in zip(proposals, boxes, strict=True)
    ]
    pairs = (torch.cat(x)[has_object] for x in ([own.tensor for own in boxes], true))
    fields.student["deltas"], theirs = (
        of_classes(x[has_object].unflatten(1, (-1, width)), classes)
        for x in (deltas, taught.deltas)
    )
    fields.teacher["deltas"] = _recoded(theirs, their_coder, coder)
    fields.truth["deltas"] = coder.get_deltas(*pairs)
    return fields


def _recoded(deltas: Tensor, coder: Any, other: Any) -> Tensor:
    """Coded boxes of one coder as another of its kind codes them, whose weights may differ."""
    if tuple(coder.weights) == tuple(other.weights):
        return deltas
    return deltas * (deltas.new_tensor(other.weights) / deltas.new_tensor(coder.weights))


def _read_masks(heads: Heads) -> Fields:
    _, calls, teacher, levels, _ = heads
    assert teacher.masks is not None
    boxes = only_call(calls, MASK_HEAD[0]).inputs["box_lists"]
    _, regions = only_call(calls, MASK_HEAD[1]).inputs.values()
    with torch.no_grad():
        taught = teacher.masks(levels, boxes)
    classes = torch.cat([x.gt_classes for x in regions])  # (P,)
    ours, theirs = (of_classes(x, classes) for x in (only_call(calls, MASKS).output, taught))
    return Fields({"masks": ours}, {"masks": theirs})


def _read_proposals(heads: Heads) -> Fields:
    student, calls, teacher, levels, _ = heads
    assert teacher.proposals is not None
    coder = student.proposal_generator.box2box_transform
    logits, coded = only_call(calls, RPN_HEAD).output
    objectness, deltas = proposal_rows(logits, coded, len(coder.weights))
    with torch.no_grad():
        taught = teacher.proposals(levels)
    is_sampled = torch.stack(only_call(calls, ANCHORS).output[0]) >= 0  # (N, anchors)
    theirs = _recoded(taught[1][is_sampled], teacher.proposals.box2box_transform, coder)
    return Fields(
        {"objectness": objectness[is_sampled], "anchor_deltas": deltas[is_sampled]},
        {"objectness": taught[0][is_sampled], "anchor_deltas": theirs},
    )
