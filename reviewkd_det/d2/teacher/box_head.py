"""The part of a two-stage detector that turns boxes into class logits and regressed boxes.

Shapes: R boxes of all images, K object classes, D features of a box, B numbers that code a box, 4
or, of rotated boxes, 5.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["BoxHead", "Regions", "box_coder", "count_classes", "of_classes"]


class Regions(NamedTuple):
    """What a box head gives for boxes.

    Args:
        logits: class logits, (R, K + 1).
        features: features, (R, D).
        deltas: coded boxes, (R, B), or one for each object class, (R, K * B).
    """

    logits: Tensor
    features: Tensor
    deltas: Tensor


def count_classes(roi_heads: Any) -> int | None:
    """Count the logits of a region, background included.

    Args:
        roi_heads: ROI heads of any detector; None for one without.

    Returns:
        K + 1; None where it has no single box head as Detectron2's `StandardROIHeads` has.
    """
    predictor: Any = getattr(roi_heads, "box_predictor", None)
    scores = getattr(predictor, "cls_score", None)
    if not isinstance(scores, nn.Linear) or not hasattr(roi_heads, "box_pooler"):
        return None
    return scores.out_features


def box_coder(head: Any) -> Any:
    """What codes the boxes of a head, with the weights of its B numbers; None without."""
    coder = getattr(head, "box2box_transform", None)
    return coder if hasattr(coder, "weights") else None


def of_classes(values: Tensor, classes: Tensor) -> Tensor:
    """Of each row what belongs to its class, (R, ...).

    Args:
        values: what is given for each object class, (R, K, ...), or for any, (R, 1, ...).
        classes: class of each row, (R,), an object's.
    """
    if values.shape[1] == 1:
        return values[:, 0]
    return values[torch.arange(len(values), device=values.device), classes]


class BoxHead(nn.Module):
    """The part of Detectron2's `StandardROIHeads` that turns boxes into class logits.

    Args:
        roi_heads: ROI heads of a teacher; its other heads are left behind.

    Raises:
        ValueError: they are not of that kind.
    """

    def __init__(self, roi_heads: Any) -> None:
        super().__init__()
        classes = count_classes(roi_heads)
        if classes is None:
            raise ValueError(
                "the teacher must have one box head, as StandardROIHeads has, for methods on "
                f"regions; got {type(roi_heads).__name__ if roi_heads is not None else 'none'}"
            )
        self.objects = classes - 1  # K
        self.in_features: Sequence[str] = roi_heads.box_in_features
        self.box_pooler = roi_heads.box_pooler
        self.box_head = roi_heads.box_head
        self.box_predictor: Any = roi_heads.box_predictor

    @property
    def features(self) -> int:
        """Features of a box, by which its class is told."""
        return int(self.box_predictor.cls_score.in_features)

    def forward(self, levels: Mapping[str, Tensor], boxes: Sequence[Any]) -> Regions:
        """Compute what the head gives for boxes of each image."""
        pooled = self.box_pooler([levels[name] for name in self.in_features], boxes)
        features = self.box_head(pooled)
        scores, deltas = self.box_predictor(features)
        return Regions(scores, features.flatten(1), deltas)
