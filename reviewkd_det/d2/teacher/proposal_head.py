"""The part of a two-stage detector that tells which anchors have an object.

Shapes: R anchors of an image, N images; a box is coded by B numbers, 4 or, if rotated, 5.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.modeling.proposal_generator import RPN
from torch import Tensor, nn

from reviewkd_det.d2.teacher.anchors import join_rows

__all__ = ["ProposalHead", "proposal_rows"]


def proposal_rows(
    objectness: Sequence[Tensor], deltas: Sequence[Tensor], width: int
) -> tuple[Tensor, Tensor]:
    """What an RPN's head gives for all levels, as rows of anchors.

    Args:
        objectness: logits of the anchors of each level, (N, A, H_l, W_l).
        deltas: their coded boxes, (N, A * B, H_l, W_l).
        width: B.

    Returns:
        Logits, (N, R), and coded boxes, (N, R, B).
    """
    return join_rows(objectness, 1)[..., 0], join_rows(deltas, width)


class ProposalHead(nn.Module):
    """The head of Detectron2's `RPN`.

    Args:
        generator: proposal generator of a teacher.

    Raises:
        ValueError: it is not of that kind.
    """

    def __init__(self, generator: Any) -> None:
        super().__init__()
        if not isinstance(generator, RPN):
            raise ValueError(
                "the teacher must have an RPN for methods on the objectness of anchors; got "
                f"{type(generator).__name__ if generator is not None else 'none'}"
            )
        self.in_features: Sequence[str] = generator.in_features
        self.rpn_head = generator.rpn_head
        self.anchor_generator = generator.anchor_generator
        self.box2box_transform = generator.box2box_transform

    def forward(self, levels: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the objectness of all anchors, (N, R), and their coded boxes, (N, R, B)."""
        objectness, deltas = self.rpn_head([levels[name] for name in self.in_features])
        return proposal_rows(objectness, deltas, len(self.box2box_transform.weights))
