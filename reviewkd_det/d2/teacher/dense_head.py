"""The part of a one-stage detector that turns its levels into class logits and boxes.

Shapes: level l of N images is (N, C_l, H_l, W_l), with A anchors in each cell; R = sum of
H_l * W_l * A anchors in all; K object classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.structures import Boxes
from torch import Tensor, nn

from reviewkd_det.core import Branch
from reviewkd_det.d2.teacher.anchors import join_rows

__all__ = ["DenseHead", "branch_channels", "cut_of", "has_branches", "is_dense"]

SUBNETS = ("cls_subnet", "bbox_subnet")


def is_dense(detector: Any) -> bool:
    """Whether a detector has a dense head that labels its anchors, as RetinaNet and FCOS do."""
    parts = ("head", "head_in_features", "anchor_generator", "num_classes", "label_anchors")
    return isinstance(detector, DenseDetector) and all(hasattr(detector, x) for x in parts)


def has_branches(detector: Any) -> bool:
    """Whether a dense head has a branch for classes and one for boxes, as Detectron2's own have."""
    head = getattr(detector, "head", None)
    return (
        is_dense(detector)
        and all(isinstance(getattr(head, name, None), nn.Sequential) for name in SUBNETS)
        and all(
            isinstance(getattr(head, name, None), nn.Conv2d) for name in ("cls_score", "bbox_pred")
        )
        and all(_activations(getattr(head, name)) for name in SUBNETS)
        and hasattr(detector, "box2box_transform")
    )


def cut_of(branch: nn.Sequential) -> int:
    """The number of the activation behind a branch's last convolution but one.

    That of its only convolution, where it has one.
    """
    return _activations(branch)[-2:][0]


def branch_channels(head: Any) -> int:
    """Channels of the maps at which the branches of a dense head are cut."""
    layers = head.cls_subnet[: cut_of(head.cls_subnet)]
    return [x.out_channels for x in layers if isinstance(x, nn.Conv2d)][-1]


def _activations(branch: nn.Sequential) -> list[int]:
    return [number for number, layer in enumerate(branch) if isinstance(layer, nn.ReLU)]


class DenseHead(nn.Module):
    """A dense head, read by its halves.

    Args:
        detector: a teacher for which `is_dense` holds; the rest of it is left behind.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.head = detector.head
        self.classes: int = detector.num_classes
        self.in_features: Sequence[str] = detector.head_in_features
        self.anchor_generator = detector.anchor_generator
        self.box2box_transform: Any = getattr(detector, "box2box_transform", None)
        self.has_branches = has_branches(detector)
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
        used = [levels[name] for name in self.in_features]
        if self.has_branches:  # what it does for boxes is left out
            logits = [self.head.cls_score(self.head.cls_subnet(x)) for x in used]
        else:
            logits = self.head(used)[0]
        return self._in_order(join_rows(logits, self.classes))

    def branches(self, levels: Mapping[str, Tensor]) -> tuple[Branch, Branch]:
        """The branches of classes and of boxes, of a head that has them.

        Args:
            levels: levels of the teacher by name.
        """
        used = [levels[name] for name in self.in_features]
        anchors = Boxes.cat(self.anchor_generator(used)).tensor  # (R, 4)
        (classes, rest), (boxes, box_rest) = (
            (branch[: cut_of(branch)], branch[cut_of(branch) :])
            for branch in (getattr(self.head, name) for name in SUBNETS)
        )
        with torch.no_grad():
            maps = [[half(x) for x in used] for half in (classes, boxes)]

        def logits_of(x: Sequence[Tensor]) -> Tensor:
            rows = join_rows([self.head.cls_score(rest(level)) for level in x], self.classes)
            return self._in_order(rows)

        def boxes_of(x: Sequence[Tensor]) -> Tensor:
            deltas = join_rows([self.head.bbox_pred(box_rest(level)) for level in x], 4)
            flat = deltas.flatten(0, 1).float(), anchors.repeat(len(deltas), 1)
            return self.box2box_transform.apply_deltas(*flat).view_as(deltas)

        return Branch(maps[0], logits_of), Branch(maps[1], boxes_of)

    def _in_order(self, rows: Tensor) -> Tensor:
        return rows if self.order is None else rows[..., self.order]
