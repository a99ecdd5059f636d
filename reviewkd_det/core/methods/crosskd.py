"""CrossKD: the student's maps through the teacher's head. Wang et al., CVPR 2024.

"CrossKD: Cross-Head Knowledge Distillation for Object Detection", arXiv:2306.11369. Shapes: a map
is (N, C, H, W); R anchors of an image; K classes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.alignment import build_aligner
from reviewkd_det.core.method import Branch, Level, Method, Need, Side, Truth, View, given
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import setting
from reviewkd_det.core.widen import widen

__all__ = ["CrossKD", "match_statistics", "quality_focal_loss", "weighted_giou_loss"]

EPSILON = 1e-6  # added to a deviation
SMALLEST_AREA = 1e-7  # added to an area


def match_statistics(student: Tensor, teacher: Tensor) -> Tensor:
    """Give each channel of the student's map the teacher's mean and deviation over (N, H, W).

    Args:
        student: map of the student, (N, C, H, W).
        teacher: map of the teacher, (N, C, H, W).
    """
    (std, mean), (their_std, their_mean) = (
        torch.std_mean(widen(x), dim=(0, 2, 3), unbiased=False, keepdim=True)
        for x in (student, teacher)
    )
    return (widen(student) - mean) / (std + EPSILON) * their_std + their_mean


def quality_focal_loss(logits: Tensor, quality: Tensor, *, beta: float = 1.0) -> Tensor:
    """Binary cross entropy against scores, less where they are met.

    With p the sigmoid of the logits and q the scores: `|q - p|^beta * BCE(q, p)`, the sum. Li et
    al., "Generalized Focal Loss", NeurIPS 2020, arXiv:2006.04388, equation 2.

    Args:
        logits: logits of the prediction, of any shape.
        quality: scores, in [0, 1], of that shape.
        beta: power, not negative.
    """
    error = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return ((quality - logits.sigmoid()).abs() ** beta * error).sum()


def weighted_giou_loss(boxes: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """One minus the generalised IoU of pairs of boxes, times weights, the sum.

    Rezatofighi et al., CVPR 2019, arXiv:1902.09630.

    Args:
        boxes: x0, y0, x1, y1 in pixels, (R, 4).
        wanted: boxes of the same shape.
        weights: weight of each pair, (R,).
    """
    corners = torch.stack([boxes, wanted])  # (2, R, 4)
    first, second = corners[..., :2], corners[..., 2:]
    inner = (second.amin(0) - first.amax(0)).clamp(min=0).prod(1)
    outer = (second.amax(0) - first.amin(0)).prod(1) + SMALLEST_AREA
    union = (second - first).prod(2).sum(0) - inner
    giou = inner / (union + SMALLEST_AREA) - (outer - union) / outer
    return (weights * (1 - giou)).sum()


@register("CrossKD")
class CrossKD(Method):
    """Compare what the teacher's head makes of the student's maps with what it makes of its own.

    Each map of the student is brought to the teacher's channels, mean and deviation, and goes on
    through the rest of the teacher's frozen head. Its classes are compared by `quality_focal_loss`
    with the teacher's scores and its boxes by `weighted_giou_loss`, weighted by the teacher's
    highest score; both are divided by the number of anchors with an object.
    """

    needs = Need.BRANCHES

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of CrossKD; the weights are published for COCO."""

        beta: float = setting(1.0, "Power of the quality focal loss.", least=0)
        boxes: float = setting(1.0, "Factor of the boxes' part.", least=0)

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        """Make what brings both branches' maps to the teacher's channels; see `Method`."""
        super().__init__(settings, student, teacher)
        levels = [Level("branch", given(side.branch)) for side in (student, teacher)]
        self.align = nn.ModuleList(build_aligner(*levels) for _ in range(2))

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss of the classes and that of the boxes."""
        heads = given(teacher.classes), given(teacher.boxes)
        classes = self._cross(0, given(student.classes), heads[0])
        boxes = self._cross(1, given(student.boxes), heads[1])
        with torch.no_grad():
            logits, wanted = (widen(head.finish(head.maps)) for head in heads)
            scores = logits.sigmoid()  # (N, R, K)
        weights = scores.amax(dim=2).flatten()
        regression = weighted_giou_loss(boxes.flatten(0, 1), wanted.flatten(0, 1), weights)
        count = max(given(truth.objects), 1)
        return {
            "classes": quality_focal_loss(classes, scores, beta=self.settings.beta) / count,
            "boxes": self.settings.boxes * regression / count,
        }

    def _cross(self, number: int, student: Branch, teacher: Branch) -> Tensor:
        """What the rest of the teacher's branch makes of the student's maps."""
        pairs = zip(student.maps, teacher.maps, strict=True)
        aligned = [match_statistics(self.align[number](ours), theirs) for ours, theirs in pairs]
        return widen(teacher.finish(aligned))
