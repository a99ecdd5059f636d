"""Boxes that are probably not [x, y, width, height] in pixels."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

__all__ = ["describe_odd_boxes"]

MARGIN = 1.0  # pixels by which a box may pass the border of its image: rounding
FEW = 0.1  # a smaller part of boxes over the border says nothing of their format
NEARLY_ALL = 0.98  # the part of the boxes that must fit into their images in another format

Box = tuple[Any, Any, Any, Any]
# What a box [a, b, c, d] would be in other formats: its left, top, right and lower border.
FORMATS: dict[str, Callable[[Any, Any, Any, Any], Box]] = {
    "[x1, y1, x2, y2]": lambda a, b, c, d: (a, b, c, d),
    "[x centre, y centre, width, height]": lambda a, b, c, d: (
        a - c / 2,
        b - d / 2,
        a + c / 2,
        b + d / 2,
    ),
}


def describe_odd_boxes(records: Iterable[dict[str, Any]]) -> str:
    """Say what a data set's boxes look like where they are hardly [x, y, width, height] in pixels.

    Args:
        records: Detectron2's image dictionaries; boxes of another mode than XYWH_ABS, and crowds,
            are passed over.

    Returns:
        The count and the likely format; "" where nothing is odd.
    """
    rows = [
        (*instance["bbox"], record["width"], record["height"])
        for record in records
        for instance in record.get("annotations", ())
        if instance.get("bbox_mode") == BoxMode.XYWH_ABS and not instance.get("iscrowd", 0)
    ]
    if not rows:
        return ""
    boxes = np.asarray(rows, dtype=np.float64)  # (R, 6)
    a, b, c, d, width, height = boxes.T
    count = f"{len(rows)} of {len(rows)} boxes"
    if boxes[:, :4].max() <= 1 and boxes[:, :4].min() >= 0 and boxes[:, 4:].min() > 2:
        return f"{count} lie in 0 to 1, as fractions of the image's width and height do"
    over = (a + c > width + MARGIN) | (b + d > height + MARGIN) | (np.minimum(a, b) < -MARGIN)
    if over.mean() < FEW:
        return ""
    count = f"{int(over.sum())} of {len(rows)} boxes"
    for name, borders in FORMATS.items():
        left, top, right, low = borders(a, b, c, d)
        ordered = (right >= left) & (low >= top)
        inside = (right <= width + MARGIN) & (low <= height + MARGIN)
        inside &= np.minimum(left, top) >= -MARGIN
        if (ordered & inside).mean() >= NEARLY_ALL:
            return f"{count} pass the border of their image, and nearly all would fit as {name}"
    return f"{count} pass the border of their image, as boxes of images of another size do"
