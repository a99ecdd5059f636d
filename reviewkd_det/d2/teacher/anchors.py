"""Rows of a head whose predictions are those of anchors, in each cell of each level.

Shapes: level l of N images is (N, C_l, H_l, W_l), with A anchors in each cell; R = sum of
H_l * W_l * A anchors in all.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.modeling.meta_arch.dense_detector import permute_to_N_HWA_K
from torch import Tensor

__all__ = ["check_same_anchors", "join_rows"]


def join_rows(maps: Iterable[Tensor], width: int) -> Tensor:
    """What all levels give, (N, A * width, H_l, W_l) each, as rows, (N, R, width)."""
    return torch.cat([permute_to_N_HWA_K(x, width) for x in maps], dim=1)


def check_same_anchors(student: Any, teacher: Any, use: str) -> None:
    """Check that rows of student and teacher are those of the same anchors.

    Args:
        student: what has an `anchor_generator`.
        teacher: the same of the teacher.
        use: what compares them, for the error sentence.

    Raises:
        ValueError: strides or anchors differ.
    """
    ours, theirs = (_anchors(x.anchor_generator) for x in (student, teacher))
    if ours != theirs:
        raise ValueError(
            f"student and teacher must have the same anchors for {use}; got "
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
        f"{len(boxes)} of up to {max(box[2] - box[0] for box in boxes):g} pixels at stride {stride}"
        for stride, _, boxes in anchors
    )
