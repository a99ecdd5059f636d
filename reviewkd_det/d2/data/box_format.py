"""Boxes that are probably not [x, y, width, height] in pixels, and masks that lie elsewhere."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

__all__ = ["describe_odd_boxes", "describe_odd_masks"]

MARGIN = 1.0  # pixels by which a box may pass the border of its image: rounding
FEW = 0.1  # a smaller part of boxes over the border says nothing of their format
NEARLY_ALL = 0.98  # the part of the boxes that must fit into their images in another format

PERCENT = 100.0
LARGE = 200  # pixels; in images of this size and more, boxes below 100 are probably in percent
SAMPLE = 5000  # masks that are looked at

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
    "[x1, y1, x2, y2] that were read as the middle and the size": lambda a, b, c, d: (
        a + c / 2,
        b + d / 2,
        c,
        d,
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
    sizes = np.minimum(width, height)
    fractions = (boxes[:, :4].max(axis=1) <= 1) & (boxes[:, :4].min(axis=1) >= 0) & (sizes > 2)
    if count := int(fractions.sum()):
        return (
            f"{count} of {len(rows)} boxes lie in 0 to 1, as fractions of the image's width and "
            "height do"
        )
    if max((a + c).max(), (b + d).max()) <= PERCENT and sizes.min() >= LARGE:
        return f"{len(rows)} of {len(rows)} boxes lie in 0 to 100, as percentages do"
    over = (a + c > width + MARGIN) | (b + d > height + MARGIN) | (np.minimum(a, b) < -MARGIN)
    if over.mean() < FEW:
        return ""
    told = f"{int(over.sum())} of {len(rows)} boxes pass the border of their image"
    for name, borders in FORMATS.items():
        left, top, right, low = borders(a, b, c, d)
        ordered = (right >= left) & (low >= top)
        inside = (right <= width + MARGIN) & (low <= height + MARGIN)
        inside &= np.minimum(left, top) >= -MARGIN
        if (ordered & inside).mean() >= NEARLY_ALL:
            return f"{told}, and nearly all would fit as {name}"
    return f"{told}, as boxes of images of another size do"


def describe_odd_masks(records: Iterable[dict[str, Any]]) -> str:
    """Say how many polygons lie outside their object's box, as those of another scale do.

    Args:
        records: Detectron2's image dictionaries; of very many objects an even part is looked at.

    Returns:
        The count and the first place; "" where hardly any does.
    """
    objects = [
        (record["file_name"], instance)
        for record in records
        for instance in record.get("annotations", ())
        if isinstance(instance.get("segmentation"), list) and instance["segmentation"]
        if instance.get("bbox_mode") == BoxMode.XYWH_ABS and not instance.get("iscrowd", 0)
    ]
    objects = objects[:: max(1, len(objects) // SAMPLE)]
    odd = [(file, x["bbox"]) for file, x in objects if _overlap(x["bbox"], x["segmentation"]) < 0.5]
    if not odd or len(odd) < FEW * len(objects):
        return ""
    file, box = odd[0]
    return f"{len(odd)} of {len(objects)} do not, the first that of box {box} of '{file}'"


def _overlap(box: Sequence[float], polygons: Sequence[Sequence[float]]) -> float:
    """Intersection over union of a box [x, y, width, height] and the extent of polygons."""
    points = np.concatenate([np.asarray(x, dtype=np.float64) for x in polygons]).reshape(-1, 2)
    one_low, one_high = np.array(box[:2]), np.array(box[:2]) + np.array(box[2:])
    low, high = points.min(axis=0), points.max(axis=0)
    common = np.clip(np.minimum(one_high, high) - np.maximum(one_low, low), 0, None).prod()
    union = (one_high - one_low).prod() + (high - low).prod() - common
    return float(common / union) if union > 0 else 1.0
