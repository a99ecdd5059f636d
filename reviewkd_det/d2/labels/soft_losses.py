"""A student's own losses, with labels that count as much as the teacher is sure of them.

`score` multiplies the gradient of all that a label teaches by its score; the values of the losses
stay those of full labels. `probabilities` makes the teacher's class probabilities the target of the
classification; boxes, masks and keypoints are learned as ever. What no label was assigned to is
background as ever.

Shapes: N images; R rows of an image, proposals or anchors; K classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.keypoint_head import BaseKeypointRCNNHead
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from torch import Tensor

from reviewkd_det.d2.labels.matched import ImageLabels, image_labels
from reviewkd_det.d2.labels.settings import KEY
from reviewkd_det.d2.labels.soft_targets import anchor_difference, region_difference
from reviewkd_det.d2.reading.taps import replaced
from reviewkd_det.d2.teacher.dense_head import is_dense

__all__ = ["check_soft", "soft_losses"]


def check_soft(student: Any, kind: str) -> None:
    """Check that a student's losses can be weighted.

    Args:
        student: a detector.
        kind: "", "score" or "probabilities".

    Raises:
        ValueError: they cannot.
    """
    has_focal_loss = is_dense(student) and hasattr(student, "focal_loss_gamma")
    predictors = _box_predictors(student)
    if kind and not (has_focal_loss or predictors):
        raise ValueError(
            f'{KEY}.SOFT must be "" for a student without Detectron2\'s box heads or focal loss; '
            f"got {kind} with {type(student).__name__}"
        )
    if kind == "probabilities" and any(getattr(x, "use_fed_loss", False) for x in predictors):
        raise ValueError(
            f'{KEY}.SOFT must be "" or score with MODEL.ROI_BOX_HEAD.USE_FED_LOSS; got {kind}'
        )


@contextmanager
def soft_losses(student: Any, inputs: Sequence[Mapping[str, Any]], kind: str) -> Iterator[None]:
    """Change the losses of a student while the context lasts.

    Args:
        student: a detector that `check_soft` lets pass.
        inputs: the batch; images without `label_scores` count in full.
        kind: "", "score" or "probabilities".
    """
    with ExitStack() as changed:
        if kind and any("label_scores" in x for x in inputs):
            labels = image_labels(inputs, student.device)
            for owner, name, function in _changes(student, labels, kind):
                changed.enter_context(replaced(owner, name, function))
        yield


Change = tuple[Any, str, Any]  # an object, the name of its method, what stands in for that


def _changes(student: Any, labels: Sequence[ImageLabels], kind: str) -> Iterator[Change]:
    weighs = kind == "score"
    if is_dense(student):
        change_anchors = _weighted_anchors if weighs else _taught_anchors
        yield student, "losses", change_anchors(student, labels, student.num_classes)
    for predictor in _box_predictors(student):
        change_regions = _weighted_regions if weighs else _taught_regions
        yield predictor, "losses", change_regions(predictor, labels)
    if not weighs:
        return
    proposals = getattr(student, "proposal_generator", None)
    if isinstance(proposals, RPN):
        yield proposals, "losses", _weighted_anchors(proposals, labels, None)
    for name in ("mask_head", "keypoint_head"):
        head = getattr(getattr(student, "roi_heads", None), name, None)
        if isinstance(head, BaseMaskRCNNHead | BaseKeypointRCNNHead):
            yield head, "forward", _weighted_head(head, labels)


def _box_predictors(student: Any) -> list[FastRCNNOutputLayers]:
    """The predictors of a box head, of which a cascade has several."""
    found = getattr(getattr(student, "roi_heads", None), "box_predictor", None)
    several = list(found) if isinstance(found, torch.nn.ModuleList) else [found]
    return [x for x in several if isinstance(x, FastRCNNOutputLayers)]


class _ScaledGradient(torch.autograd.Function):
    """A tensor as it is, whose gradient is multiplied by weights of the rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (weights,) = ctx.saved_tensors
        return gradients[0] * weights.to(gradients[0]), None


def _scaled(x: Tensor, weights: Tensor) -> Tensor:
    """`x` (rows..., ...) with gradients multiplied by weights (rows...)."""
    shape = [*weights.shape, *[1] * (x.dim() - weights.dim())]
    scaled: Tensor = _ScaledGradient.apply(x, weights.view(shape))
    return scaled


def _proposal_scores(proposals: Sequence[Any], labels: Sequence[ImageLabels], classes: int) -> Any:
    """The scores of all proposals' labels, (sum of R,)."""
    scores = [
        own.row_scores(
            x.gt_boxes.tensor, x.gt_classes, (x.gt_classes >= 0) & (x.gt_classes < classes)
        )
        if x.has("gt_boxes")
        else own.scores.new_ones(len(x))
        for x, own in zip(proposals, labels, strict=True)
    ]
    return torch.cat(scores)


def _weighted_regions(predictor: Any, labels: Sequence[ImageLabels]) -> Any:
    own = predictor.losses

    def losses(predictions: Any, proposals: Sequence[Any]) -> Any:
        scores = _proposal_scores(proposals, labels, predictor.num_classes)
        return own(tuple(_scaled(x, scores) for x in predictions), proposals)

    return losses


def _taught_regions(predictor: Any, labels: Sequence[ImageLabels]) -> Any:
    own = predictor.losses

    def losses(predictions: Any, proposals: Sequence[Any]) -> Any:
        found = own(predictions, proposals)
        change = region_difference(predictor, predictions[0], proposals, labels)
        return {**found, "loss_cls": found["loss_cls"] + change}

    return losses


def _weighted_anchors(owner: Any, labels: Sequence[ImageLabels], classes: int | None) -> Any:
    """Losses of a dense head, or of an RPN, whose anchors have no classes."""
    own = owner.losses

    def losses(anchors: Any, logits: Any, marks: Any, deltas: Any, boxes: Any, *more: Any) -> Any:
        scores = [
            x.row_scores(box, None if classes is None else mark, _is_object(mark, classes))
            for x, mark, box in zip(labels, marks, boxes, strict=True)
        ]
        by_level = torch.stack(scores).split([x.shape[1] for x in logits], dim=1)  # (N, R_l) each
        weighted = [
            [_scaled(x, level) for x, level in zip(outputs, by_level, strict=True)]
            for outputs in (logits, deltas, *more)
        ]
        return own(anchors, weighted[0], marks, weighted[1], boxes, *weighted[2:])

    return losses


def _taught_anchors(student: Any, labels: Sequence[ImageLabels], _: int | None) -> Any:
    own = student.losses

    def losses(anchors: Any, logits: Any, marks: Any, deltas: Any, boxes: Any, *more: Any) -> Any:
        found = own(anchors, logits, marks, deltas, boxes, *more)
        (name,) = (x for x in found if x.endswith("cls"))
        joined = torch.cat(logits, dim=1)  # (N, R, K)
        change = anchor_difference(student, joined, marks, boxes, labels)
        return {**found, name: found[name] + change}

    return losses


def _is_object(marks: Tensor, classes: int | None) -> Tensor:
    """Whether anchors are assigned a label; an RPN marks these with 1."""
    return marks == 1 if classes is None else (marks >= 0) & (marks < classes)


def _weighted_head(head: Any, labels: Sequence[ImageLabels]) -> Any:
    own, layers = head.forward, head.layers

    def forward(x: Any, instances: Sequence[Any]) -> Any:
        scores = _proposal_scores(instances, labels, classes=2**31)  # all are of a label
        with replaced(head, "layers", lambda y: _scaled(layers(y), scores)):
            return own(x, instances)

    return forward
