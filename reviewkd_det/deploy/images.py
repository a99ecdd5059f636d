"""Images as an exported detector sees them.

Shapes: an image is (H, W, 3), uint8, red first.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from reviewkd_det.deploy.metadata import Metadata

__all__ = ["IMAGE_SUFFIXES", "as_input", "input_size", "read_image"]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def read_image(path: str | Path) -> np.ndarray:
    """Read an image file, upright as its EXIF data say, (H, W, 3).

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"image must be a file that can be read; got '{path}': {error}") from error


def input_size(height: int, width: int, metadata: Metadata) -> tuple[int, int]:
    """The height and width that an image is resized to, as Detectron2's ResizeShortestEdge has it.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.
        metadata: metadata of the detector.
    """
    if metadata.size is not None:
        scale = min(metadata.size[0] / height, metadata.size[1] / width)
        return max(int(height * scale), 1), max(int(width * scale), 1)
    if not metadata.min_size:
        return height, width
    scale = metadata.min_size / min(height, width)
    new_height, new_width = scale * height, scale * width
    if max(new_height, new_width) > metadata.max_size:
        again = metadata.max_size / max(new_height, new_width)
        new_height, new_width = new_height * again, new_width * again
    return int(new_height + 0.5), int(new_width + 0.5)


def as_input(image: np.ndarray, metadata: Metadata) -> tuple[np.ndarray, tuple[int, int]]:
    """The input of the network, (3, H, W), uint8, and the size of the image inside it.

    Args:
        image: the image.
        metadata: metadata of the detector.

    Returns:
        The input, filled at its right and bottom with the mean where its size is fixed.
    """
    height, width = input_size(image.shape[0], image.shape[1], metadata)
    ordered = image if metadata.channels == "RGB" else image[:, :, ::-1]
    if (height, width) != image.shape[:2]:
        ordered = np.asarray(
            Image.fromarray(np.ascontiguousarray(ordered)).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
    if metadata.size is not None:
        filled = np.empty((*metadata.size, 3), np.uint8)
        filled[:] = np.round(metadata.mean).clip(0, 255).astype(np.uint8)
        filled[:height, :width] = ordered
        ordered = filled
    return np.ascontiguousarray(ordered.transpose(2, 0, 1)), (height, width)
