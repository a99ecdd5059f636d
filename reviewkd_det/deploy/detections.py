"""What a detector found in an image, in the pixels of that image.

Shapes: D detections; an image has H x W pixels; a mask is given by M x M values of its box.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pycocotools import mask as coco_masks

__all__ = ["Detections", "in_image", "paste_masks"]


@dataclass(frozen=True)
class Detections:
    """Detections, the surest first.

    Args:
        boxes: x0, y0, x1, y1 in pixels, (D, 4).
        classes: numbers of the classes, (D,).
        scores: scores in [0, 1], (D,).
        masks: masks, (D, H, W), bool; None without.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None = None

    def of_score(self, least: float) -> "Detections":
        """Those with at least that score."""
        kept = self.scores >= least
        masks = None if self.masks is None else self.masks[kept]
        return replace(
            self, boxes=self.boxes[kept], classes=self.classes[kept], scores=self.scores[kept],
            masks=masks,
        )  # fmt: skip

    def as_coco(self, image_id: int | str, categories: Sequence[int]) -> list[dict[str, Any]]:
        """The results of COCO's format.

        Args:
            image_id: the image.
            categories: number of the category of each class.
        """
        rows = []
        for i, (x0, y0, x1, y1) in enumerate(self.boxes.astype(float).tolist()):
            row: dict[str, Any] = {
                "image_id": image_id, "category_id": categories[int(self.classes[i])],
                "bbox": [x0, y0, x1 - x0, y1 - y0], "score": float(self.scores[i]),
            }  # fmt: skip
            if self.masks is not None:
                coded = coco_masks.encode(np.asfortranarray(self.masks[i].astype(np.uint8)))
                row["segmentation"] = {**coded, "counts": coded["counts"].decode()}
            rows.append(row)
        return rows


def in_image(
    boxes: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
    masks: np.ndarray | None,
    seen: tuple[int, int],
    size: tuple[int, int],
) -> Detections:
    """Detections in the pixels of the image, as Detectron2's postprocessing gives them.

    Args:
        boxes: boxes in the pixels of the network's input, (D, 4).
        classes: numbers of the classes, (D,).
        scores: scores, (D,).
        masks: probabilities inside the boxes, (D, 1, M, M); None without.
        seen: height and width of the image as the network saw it.
        size: height and width of the image.

    Returns:
        The detections; boxes are cut to the image, and those left without any area are left out.
    """
    height, width = size
    scale = np.array([width / seen[1], height / seen[0]] * 2, np.float32)
    limit = np.array([width, height] * 2, np.float32)
    boxes = np.clip(boxes * scale, 0, limit)
    kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    pasted = None if masks is None else paste_masks(masks[kept][:, 0], boxes[kept], size)
    return Detections(boxes[kept], classes[kept], scores[kept], pasted)


def paste_masks(
    masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], *, threshold: float = 0.5
) -> np.ndarray:
    """Masks of images from those of boxes, bilinearly.

    Args:
        masks: probabilities inside each box, (D, M, M).
        boxes: boxes in pixels, (D, 4).
        size: height and width of the image.
        threshold: least probability of a pixel of the mask.

    Returns:
        The masks, (D, H, W), bool.
    """
    pasted = np.zeros((len(masks), *size), bool)
    for mask, (x0, y0, x1, y1), into in zip(masks, boxes.tolist(), pasted, strict=True):
        rows = _weights(y0, y1, size[0], mask.shape[0])
        columns = _weights(x0, x1, size[1], mask.shape[1])
        into[:] = rows @ mask @ columns.T >= threshold
    return pasted


def _weights(start: float, end: float, pixels: int, cells: int) -> np.ndarray:
    """Of each pixel of a line the weights of the cells between which it lies, (pixels, cells)."""
    centers = (np.arange(pixels) + 0.5 - start) / (end - start) * cells - 0.5
    distances = np.abs(centers[:, None] - np.arange(cells))
    return np.clip(1 - distances, 0, 1).astype(np.float32)
