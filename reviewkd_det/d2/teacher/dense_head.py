"""The part of a one-stage detector that turns its levels into class logits.

Shapes: level l of N images is (N, C_l, H_l, W_l), with A anchors in each cell; R = sum of
H_l * W_l * A anchors in all; K object classes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling.meta_arch.dense_detector import DenseDetector, permute_to_N_HWA_K
from torch import Tensor, nn

__all__ = ["DenseHead", "check_same_anchors", "is_dense", "join_rows"]


def is_dense(detector: Any) -> bool:
    """Whether a detector has a dense head that labels its anchors, as RetinaNet and FCOS do."""
    parts = ("head", "head_in_features", "anchor_generator", "num_classes", "label_anchors")
    return isinstance(detector, DenseDetector) and all(hasattr(detector, x) for x in parts)


def join_rows(logits: Iterable[Tensor], classes: int) -> Tensor:
    """The logits of all levels, (N, A * K, H_l, W_l) each, as rows, (N, R, K)."""
    return torch.cat([permute_to_N_HWA_K(x, classes) for x in logits], dim=1)


class DenseHead(nn.Module):
    """The classifying half of a dense head.

    Args:
        detector: a teacher for which `is_dense` holds; the rest of it is left behind.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.head = detector.head
        self.classes: int = detector.num_classes
        self.in_features: Sequence[str] = detector.head_in_features
        self.anchor_generator = detector.anchor_generator
        self.order: list[int] | None = None

    def take_classes(self, order: Sequence[int]) -> None:
        """Give the class logits in another order.

        Args:
            order: number, among this head's classes, of each class of the new order.
        """
        self.order = list(order)

    @property
    def given_classes(self) -> int:
        """The number of classes that logits are given of."""
        return self.classes if self.order is None else len(self.order)

    def forward(self, levels: Mapping[str, Tensor]) -> Tensor:
        """Compute the class logits of all anchors, (N, R, K)."""
        rows = self._rows([levels[name] for name in self.in_features])
        return rows if self.order is None else rows[..., self.order]

    def _rows(self, used: list[Tensor]) -> Tensor:
        if hasattr(self.head, "cls_subnet") and hasattr(self.head, "cls_score"):
            # Detectron2's own heads; what they do for boxes is left out.
            return join_rows(
                (self.head.cls_score(self.head.cls_subnet(x)) for x in used), self.classes
            )
        return join_rows(self.head(used)[0], self.classes)


def check_same_anchors(student: Any, teacher: DenseHead) -> None:
    """Check that rows of logits are those of the same anchors.

    Raises:
        ValueError: strides or anchors differ.
    """
    ours, theirs = (_anchors(x.anchor_generator) for x in (student, teacher))
    if ours != theirs:
        raise ValueError(
            "student and teacher must have the same anchors for methods on logits; got "
            f"{_told(ours)} in the student and {_told(theirs)} in the teacher"
        )


def _anchors(generator: Any) -> list[tuple[Any, ...]]:
    """Of each level its stride, the place of anchors in a cell, and their boxes in pixels."""
    return [
        (stride, generator.offset, cell.detach().cpu().round(decimals=2).tolist())
        for stride, cell in zip(generator.strides, generator.cell_anchors, strict=True)
    ]


def _told(anchors: Sequence[tuple[Any, ...]]) -> str:
    return ", ".join(
        f"{len(boxes)} of up to {max(x2 - x1 for x1, _, x2, _ in boxes):g} pixels at stride "
        f"{stride}"
        for stride, _, boxes in anchors
    )
