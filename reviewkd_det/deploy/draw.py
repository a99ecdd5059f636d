"""Pictures of what was found."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from reviewkd_det.deploy.detections import Detections

__all__ = ["draw_detections"]

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLORS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip
ALPHA = 0.45  # of a mask
SMALLEST = 480  # pixels of the shorter side that a picture has at least


def draw_detections(image: np.ndarray, found: Detections, classes: Sequence[str]) -> Image.Image:
    """Draw boxes with class and score, and masks, over an image.

    Args:
        image: (H, W, 3), uint8, red first.
        found: its detections.
        classes: names of the classes.

    Returns:
        The picture, of twice the size or more where the image is small.
    """
    painted = image.astype(np.float32)
    for i, mask in enumerate([] if found.masks is None else found.masks):
        painted[mask] = (1 - ALPHA) * painted[mask] + ALPHA * np.array(_color(found.classes[i]))
    factor = max(1, -(-SMALLEST // min(image.shape[:2])))
    picture = Image.fromarray(painted.astype(np.uint8))
    picture = picture.resize((picture.width * factor, picture.height * factor))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=14)
    for box, label, score in zip(found.boxes, found.classes, found.scores, strict=True):
        x0, y0, x1, y1 = (factor * box).tolist()
        draw.rectangle((x0, y0, x1, y1), outline=_color(label), width=2)
        text = f"{classes[int(label)]} {score:.2f}"
        left, top, right, bottom = draw.textbbox((x0 + 2, max(y0 - 18, 0)), text, font=font)
        draw.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=_color(label))
        draw.text((left, max(y0 - 18, 0)), text, fill=(0, 0, 0), font=font)
    return picture


def _color(label: int) -> tuple[int, int, int]:
    return COLORS[int(label) % len(COLORS)]
