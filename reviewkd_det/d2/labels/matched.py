"""Which label each row of a loss belongs to, and how sure the teacher is of it.

Shapes: M labels of an image; R rows of an image, proposals or anchors; P class probabilities.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["ImageLabels", "image_labels"]


class ImageLabels(NamedTuple):
    """The labels of an image.

    Args:
        boxes: boxes, (M, 4).
        classes: classes, (M,).
        scores: the teacher's scores, (M,); 1 where somebody labelled.
        probabilities: the teacher's class probabilities, (M, P), NaN where it gave none; None
            where it gave none at all.
    """

    boxes: Tensor
    classes: Tensor
    scores: Tensor
    probabilities: Tensor | None

    def find(self, boxes: Tensor, classes: Tensor | None = None) -> Tensor:
        """Find the labels that rows were assigned, by their boxes and classes.

        Args:
            boxes: boxes of the labels that the rows were assigned, (R, 4).
            classes: their classes, (R,); None compares boxes alone.

        Returns:
            The index of each row's label, (R,).
        """
        is_same = (boxes[:, None] == self.boxes).all(dim=2)  # (R, M)
        if classes is not None:
            is_same &= classes[:, None] == self.classes
        return is_same.to(torch.uint8).argmax(dim=1)

    def row_scores(self, boxes: Tensor, classes: Tensor | None, has_label: Tensor) -> Tensor:
        """The score of each row's label, (R,); 1 for rows without one.

        Args:
            boxes: see `find`, (R, 4).
            classes: see `find`, (R,).
            has_label: whether a row was assigned a label, (R,).
        """
        scores = self.scores.new_ones(len(boxes))
        rows = has_label.nonzero()[:, 0]
        if len(rows) and len(self.boxes):
            found = self.find(boxes[rows], None if classes is None else classes[rows])
            scores[rows] = self.scores[found]
        return scores

    def row_probabilities(
        self, boxes: Tensor, classes: Tensor, has_label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The rows whose label has class probabilities, (S,), and these, (S, P).

        Args:
            boxes: see `find`, (R, 4).
            classes: see `find`, (R,).
            has_label: whether a row was assigned a label, (R,).
        """
        rows = has_label.nonzero()[:, 0]
        if self.probabilities is None or not len(rows):
            return rows[:0], self.scores.new_empty(0, 0)
        found = self.probabilities[self.find(boxes[rows], classes[rows])]  # (rows, P)
        is_known = found.isfinite().all(dim=1)
        return rows[is_known], found[is_known]


def image_labels(
    inputs: Sequence[Mapping[str, Any]], device: torch.device | str
) -> list[ImageLabels]:
    """The labels of each image of a batch, Detectron2's dictionaries as our mapper gives them."""
    found = []
    for x in inputs:
        instances = x["instances"]
        scores = x.get("label_scores", torch.ones(len(instances))).to(device)
        rows = x.get("label_probabilities")
        boxes = instances.gt_boxes.tensor.to(device)
        probabilities = None if rows is None else rows.to(device)
        found.append(ImageLabels(boxes, instances.gt_classes.to(device), scores, probabilities))
    return found
