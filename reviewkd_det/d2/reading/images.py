"""Images as a model sees them: normalised, and padded to one size.

Shapes: an image is (3, h, w) with pixel values; H x W is the padded size of a batch.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.layers import move_device_like
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "channels_first",
    "cut_to",
    "normalize_and_pad",
    "shrink_to_fit",
    "size_for",
]


def normalize_and_pad(image: Tensor, mean: Tensor, std: Tensor, size: Sequence[int]) -> Tensor:
    """Normalise an image and pad it with zeros at the right and the bottom.

    Args:
        image: (3, h, w), h and w at most the padded ones.
        mean: mean of each channel, in pixel values, (3, 1, 1).
        std: standard deviation of each channel, in pixel values, (3, 1, 1).
        size: (H, W).

    Returns:
        (3, H, W), on the device of the mean.
    """
    image = (move_device_like(image, mean) - mean) / std
    height, width = image.shape[-2:]
    return F.pad(image, (0, size[1] - width, 0, size[0] - height))


def size_for(backbone: Any, size: Sequence[int]) -> tuple[int, int]:
    """The least size, H x W or more, that a backbone wants its images padded to.

    Args:
        backbone: Detectron2's; it may ask for multiples of a number and for a square.
        size: (H, W).
    """
    constraints = getattr(backbone, "padding_constraints", {})
    square_size = constraints.get("square_size", 0)
    multiple = max(1, constraints.get("size_divisibility", backbone.size_divisibility))
    height, width = (math.ceil(max(x, square_size) / multiple) * multiple for x in size)
    return height, width


def channels_first(maps: Tensor) -> Tensor:
    """As `maps.contiguous()` of maps (N, C, H, W) whose channels are last in memory.

    A CPU copies each image as a transposed matrix, which PyTorch does in blocks that fit its cache.
    """
    if maps.is_cuda or maps.is_contiguous():
        return maps.contiguous()
    copy = torch.empty(maps.shape, dtype=maps.dtype, device=maps.device)
    for image, target in zip(maps, copy, strict=True):
        target.flatten(1).copy_(image.flatten(1))
    return copy


def cut_to(level: Tensor, size: Sequence[int], stride: int) -> Tensor:
    """The part of a pyramid level that covers the first H x W pixels, in whole cells."""
    height, width = (math.ceil(x / stride) for x in size)
    return level[..., :height, :width]


def shrink_to_fit(image: Tensor, size: Sequence[int]) -> Tensor:
    """Shrink an image, keeping its aspect, until it fits into H x W; a smaller one is left alone.

    Args:
        image: (3, h, w).
        size: (H, W).
    """
    height, width = image.shape[-2:]
    scale = min(size[0] / height, size[1] / width)
    if scale >= 1:
        return image
    new_size = [max(1, int(height * scale)), max(1, int(width * scale))]
    shrunk = F.interpolate(image[None].float(), new_size, mode="bilinear", antialias=True)
    return shrunk[0]  # (3, new height, new width)
