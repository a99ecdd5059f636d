"""What class probabilities as targets change in a classification loss.

Each function gives the difference to the loss of full labels, so that what no teacher labelled
stays as it was, bit for bit.

Shapes: R rows; K classes; P probabilities, K of sigmoids, or K + 1 with the background last.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.d2.labels.matched import ImageLabels

__all__ = ["anchor_difference", "region_difference"]


def _with_background(probabilities: Tensor, classes: int) -> Tensor:
    """Class probabilities with that of the background last, (R, K + 1), which add up to 1."""
    if probabilities.shape[1] == classes:  # each a yes or no of its own
        rest = (1 - probabilities.sum(dim=1, keepdim=True)).clamp(min=0)
        probabilities = torch.cat([probabilities, rest], dim=1)
    return probabilities / probabilities.sum(dim=1, keepdim=True)


def region_difference(
    predictor: Any, logits: Tensor, proposals: Sequence[Any], labels: Sequence[ImageLabels]
) -> Tensor:
    """Of a box head: its mean cross entropy, or that of its sigmoids.

    Args:
        predictor: Detectron2's `FastRCNNOutputLayers`.
        logits: logits of all proposals, (R, K + 1).
        proposals: sampled proposals of each image.
        labels: labels of each image.
    """
    count = predictor.num_classes
    total = logits.new_zeros(())
    by_image = logits.split([len(x) for x in proposals])
    for x, own, of_image in zip(proposals, labels, by_image, strict=True):
        if not x.has("gt_boxes"):
            continue
        has_label = (x.gt_classes >= 0) & (x.gt_classes < count)
        rows, wanted = own.row_probabilities(x.gt_boxes.tensor, x.gt_classes, has_label)
        if not len(rows):
            continue
        given, classes = of_image[rows].float(), x.gt_classes[rows]
        if getattr(predictor, "use_sigmoid_ce", False):
            hard = F.one_hot(classes, count).to(given)
            total = total + ((hard - wanted[:, :count]) * given[:, :count]).sum()
        else:
            hard = F.one_hot(classes, count + 1).to(given)
            gap = hard - _with_background(wanted, count)
            total = total + (gap * F.log_softmax(given, dim=1)).sum()
    weight = predictor.loss_weight.get("loss_cls", 1.0)
    return weight * total / max(1, len(logits))


def anchor_difference(
    student: Any,
    logits: Tensor,
    marks: Sequence[Tensor],
    boxes: Sequence[Tensor],
    labels: Sequence[ImageLabels],
) -> Tensor:
    """Of a dense head: its focal loss, divided by the student's number of objects.

    Args:
        student: RetinaNet or FCOS, which has counted the objects of the batch.
        logits: logits of all anchors, (N, R, K).
        marks: classes that each image's anchors are assigned, (R,).
        boxes: boxes that each image's anchors are assigned, (R, 4).
        labels: labels of each image.
    """
    count = student.num_classes
    total = logits.new_zeros(())
    for of_image, mark, box, own in zip(logits, marks, boxes, labels, strict=True):
        rows, wanted = own.row_probabilities(box, mark, (mark >= 0) & (mark < count))
        if len(rows):
            given = of_image[rows].float()
            hard = F.one_hot(mark[rows], count).to(given)
            total = total + _focal(student, given, wanted[:, :count].to(given))
            total = total - _focal(student, given, hard)
    return total / student.loss_normalizer


def _focal(student: Any, logits: Tensor, target: Tensor) -> Tensor:
    """The sum of the focal loss, for targets between 0 and 1 as well.

    Its factor is the distance of probability and target to the power gamma, which for targets of
    0 and 1 is that of the focal loss; where they agree the loss and its gradient are 0.
    """
    distance = (target - logits.sigmoid()).abs() ** student.focal_loss_gamma
    loss = distance * F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    alpha = student.focal_loss_alpha
    if alpha >= 0:
        loss = loss * (alpha * target + (1 - alpha) * (1 - target))
    return loss.sum()
