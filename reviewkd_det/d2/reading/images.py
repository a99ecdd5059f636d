"""Images as a model sees them: normalised, and padded to one size.

Shapes: an image is (3, h, w) with pixel values; H x W is the padded size of a batch.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.layers import move_device_like
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "channels_first",
    "cut_to",
    "joined_to_batch",
    "normalize_and_pad",
    "shrink_to_fit",
    "size_for",
]


def normalize_and_pad(image: Tensor, mean: Tensor, std: Tensor, size: Sequence[int]) -> Tensor:
    """Normalise an image and pad it with zeros at the right and the bottom.

    Args:
        image: (3, h, w), h and w at most the padded ones.
        mean: of each channel, in pixel values, (3, 1, 1).
        std: likewise.
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


@contextmanager
def joined_to_batch(student: Any, images: Sequence[Tensor]) -> Iterator[None]:
    """Let a detector's backbone see more images than the detector does.

    While the context lasts, the images, normalised and padded as the student's own, are appended
    to each batch its backbone is called with; the rest of the detector gets the levels of its own
    images alone. So one backbone pass, with one set of batch statistics, serves both.

    Args:
        student: a detector with `backbone`, `pixel_mean` and `pixel_std`.
        images: (3, h, w) each; one that is larger than the batch is shrunk.
    """
    if not images:
        yield
        return
    own_counts: list[int] = []

    def append(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> Any:
        inputs = (*args, *kwargs.values())
        batch, others = inputs[0], inputs[1:]  # (N, 3, H, W)
        size = batch.shape[-2:]
        more = [
            normalize_and_pad(
                shrink_to_fit(image, size), student.pixel_mean, student.pixel_std, size
            )
            for image in images
        ]
        own_counts.append(len(batch))
        return (torch.cat([batch, torch.stack(more).to(batch)]), *others), {}

    def cut(_: nn.Module, __: Any, levels: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: level[: own_counts[-1]] for name, level in levels.items()}

    hooks = [
        student.backbone.register_forward_pre_hook(append, with_kwargs=True),
        student.backbone.register_forward_hook(cut),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
