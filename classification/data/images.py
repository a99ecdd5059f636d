"""Image files as upright RGB pictures, and any picture in the size that is asked for."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

__all__ = ["decode_images", "fit", "read_rgb"]

Picture = TypeVar("Picture", Image.Image, Tensor)

_BACKGROUND = (255, 255, 255)  # what shows through transparent pixels
_GREATEST_16_BIT = 65535
_PER_TASK = 64  # files that a thread reads in one go


def read_rgb(path: str) -> Image.Image:
    """Read an image file as 8-bit RGB, turned upright as its EXIF note asks.

    16-bit grey is scaled to 8 bits, not clipped; transparent pixels show white.

    Raises:
        ValueError: If the file cannot be read, or its pixel values have no known range.
    """
    try:
        with Image.open(path) as image:
            image.load()  # raises what is damaged, once: a second load would return the rest
            return _to_rgb(_turn_upright(image))
    except Exception as error:  # Pillow raises many types
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"image file must be readable; got {path!r}: {reason}") from error


def decode_images(paths: Sequence[str], image_size: int) -> Tensor:
    """Read image files on all cores, each fitted to `image_size` pixels a side.

    Returns:
        (n, 3, image_size, image_size), uint8.

    Raises:
        ValueError: the file cannot be read as an image.
    """
    images = torch.empty(len(paths), 3, image_size, image_size, dtype=torch.uint8)

    def read_some(start: int) -> None:
        for index in range(start, min(start + _PER_TASK, len(paths))):
            images[index] = transforms.pil_to_tensor(fit(read_rgb(paths[index]), image_size))

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for _ in pool.map(read_some, range(0, len(paths), _PER_TASK)):
            pass  # raises the first error and drops the tasks that have not begun
    return images


def fit(picture: Picture, image_size: int, *, shorter_edge: int | None = None) -> Picture:
    """Resize the shorter edge (bilinear, antialiased) and cut out the centre square.

    A picture that already is image_size x image_size is returned as it is.

    Args:
        picture: a PIL image or a tensor (..., 3, H, W).
        image_size: side of the result, in pixels.
        shorter_edge: length of the shorter edge before the cut, in pixels; `image_size` if None.
    """
    if transforms.get_size(picture) == [image_size, image_size]:
        return picture
    resized = transforms.resize(picture, [shorter_edge or image_size])
    return transforms.center_crop(resized, [image_size, image_size])


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many types on broken EXIF data (detectron2 issue 1885)
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("pixels must be integers; got mode F")
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips it at 255
        return _scale_16_bit(np.asarray(image)).convert("RGB")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, _BACKGROUND)
        return Image.alpha_composite(opaque, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _scale_16_bit(values: np.ndarray) -> Image.Image:
    if values.min() < 0 or values.max() > _GREATEST_16_BIT:
        raise ValueError(
            f"grey values must be 0 to {_GREATEST_16_BIT}; got {values.min()} to {values.max()}"
        )
    return Image.fromarray((values * (255.0 / _GREATEST_16_BIT)).round().astype(np.uint8))
