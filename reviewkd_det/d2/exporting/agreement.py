"""Whether an exported file finds what the detector finds."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from reviewkd_det.deploy.detections import Detections, in_image
from reviewkd_det.deploy.images import as_input
from reviewkd_det.deploy.metadata import Metadata

__all__ = ["BOX_PIXELS", "MASK_PIXELS", "SCORE", "check_agreement", "detect_with"]

BOX_PIXELS, SCORE = 0.01, 1e-4
MASK_PIXELS = 1e-3  # share of those of all masks that may differ, or else one of each mask


def detect_with(run: Callable[..., Any], metadata: Metadata, image: np.ndarray) -> Detections:
    """What a traced module finds in an image.

    Args:
        run: function from an image to what `traceable` gives.
        metadata: how it sees images.
        image: (H, W, 3), uint8, red first.
    """
    given, seen = as_input(image, metadata)
    with torch.no_grad():
        found = [x.cpu().numpy() for x in run(torch.from_numpy(given))]
    boxes, classes, *masks, scores = found
    size = image.shape[0], image.shape[1]
    return in_image(boxes, classes, scores, masks[0] if masks else None, seen, size)


def check_agreement(
    expected: Sequence[Detections], found: Sequence[Detections], what: str
) -> tuple[float, float]:
    """Check that two ways to run a detector give the same.

    Detections of one score may change places.

    Args:
        expected: what the detector finds in each image.
        found: what the exported file finds.
        what: what is checked, for the error sentence.

    Returns:
        The largest difference of a box, in pixels, and of a score.

    Raises:
        ValueError: they differ by more than rounding.
    """
    farthest_box = farthest_score = 0.0
    for number, (ours, theirs) in enumerate(zip(expected, found, strict=True), 1):
        reason = ""
        if len(ours.scores) != len(theirs.scores):
            reason = f"{len(theirs.scores)} detections for {len(ours.scores)}"
        elif len(ours.scores):
            places = [_nearest(ours, i, theirs) for i in range(len(ours.scores))]
            boxes = np.abs(ours.boxes - theirs.boxes[places]).max(initial=0)
            scores = np.abs(ours.scores - theirs.scores[places]).max(initial=0)
            farthest_box, farthest_score = max(farthest_box, boxes), max(farthest_score, scores)
            if len(set(places)) < len(places) or boxes > BOX_PIXELS or scores > SCORE:
                reason = f"boxes {boxes:.3g} pixels apart and scores {scores:.3g}"
            elif ours.masks is not None and theirs.masks is not None:
                differing = (ours.masks != theirs.masks[places]).sum()
                if differing > max(MASK_PIXELS * ours.masks.sum(), len(ours.masks)):
                    reason = f"masks {differing} pixels apart"
        if reason:
            raise ValueError(
                f"{what} must find what the detector finds, boxes within {BOX_PIXELS} pixels and "
                f"scores within {SCORE}; got {reason} in image {number} of {len(expected)}"
            )
    return float(farthest_box), float(farthest_score)


def _nearest(ours: Detections, number: int, theirs: Detections) -> int:
    """The detection of the other side of the same class whose box and score are nearest."""
    apart = np.abs(theirs.boxes - ours.boxes[number]).max(axis=1)
    apart = apart + np.abs(theirs.scores - ours.scores[number])
    apart[theirs.classes != ours.classes[number]] = np.inf
    return int(apart.argmin())
