"""The part of a two-stage detector that turns boxes into class logits.

Shapes: R boxes of all images, K object classes, D features of a box.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["BoxHead", "count_classes"]


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
                f"logits; got {type(roi_heads).__name__ if roi_heads is not None else 'none'}"
            )
        self.classes = classes
        self.in_features: Sequence[str] = roi_heads.box_in_features
        self.box_pooler = roi_heads.box_pooler
        self.box_head = roi_heads.box_head
        self.box_predictor: Any = roi_heads.box_predictor

    def take_classes(self, order: Sequence[int]) -> None:
        """Give the class logits in another order, background last.

        Args:
            order: number, among this head's classes, of each class of the new order.
        """
        scores = self.box_predictor.cls_score
        rows = [*order, self.classes - 1]
        scores.weight = nn.Parameter(scores.weight.detach()[rows])
        scores.bias = nn.Parameter(scores.bias.detach()[rows])
        scores.out_features = self.classes = len(rows)

    @property
    def features(self) -> int:
        """Features of a box, by which its class is told."""
        return int(self.box_predictor.cls_score.in_features)

    def forward(self, levels: Mapping[str, Tensor], boxes: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Compute the class logits of the boxes, (R, K + 1), and their features, (R, D)."""
        pooled = self.box_pooler([levels[name] for name in self.in_features], boxes)
        features = self.box_head(pooled)
        scores, _ = self.box_predictor(features)
        return scores, features.flatten(1)
