"""What a network sees of images."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize, to_dtype

from reviewkd_det.common.weights.pixels import library_pixels

__all__ = ["Preprocess", "build_preprocess"]

logger = logging.getLogger(__name__)
LIBRARIES = ("timm", "torchvision")


class Preprocess(nn.Module):
    """Scale uint8 images to [0, 1], subtract the mean and divide by the standard deviation.

    Unlike torchvision's `Normalize` it keeps both on the device, so that a step copies nothing
    there and can be a CUDA graph. The output's memory has its channels last, which convolutions run
    faster on.

    Args:
        mean: mean of each channel of images in [0, 1].
        std: standard deviation of each channel of images in [0, 1].
        size: side in pixels to which square images are resized first; 0 leaves them as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], size: int = 0) -> None:
        super().__init__()
        self.size = size
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Make the input, float32, of uint8 images, (N, C, H, W) both."""
        images = images.contiguous(memory_format=torch.channels_last)
        scaled: Tensor = to_dtype(images, torch.float32, scale=True)
        if self.size:
            scaled = resize(scaled, [self.size, self.size], antialias=True)
        return (scaled - self.mean) / self.std


def build_preprocess(cfg: CfgNode) -> tuple[Preprocess, Preprocess | None]:
    """Build what makes the student's input, and the teacher's; None where that is the same.

    A teacher with weights of timm or torchvision sees images as these were trained on, unless
    `TEACHER.MEAN` and `TEACHER.STD` say otherwise; a student's that differ are warned of.
    """
    own = tuple(cfg.INPUT.MEAN), tuple(cfg.INPUT.STD)
    student = Preprocess(*own)
    trained = _trained_pixels(cfg.MODEL)
    if trained is not None and trained != own:
        logger.warning(
            "INPUT.MEAN and INPUT.STD are %s, and the weights of %s were trained with %s",
            own, cfg.MODEL.NAME, trained,
        )  # fmt: skip
    trained = _trained_pixels(cfg.TEACHER) or own
    mean = tuple(cfg.TEACHER.MEAN) or trained[0]
    std = tuple(cfg.TEACHER.STD) or trained[1]
    size = 0 if cfg.TEACHER.SIZE == cfg.INPUT.SIZE else cfg.TEACHER.SIZE
    if (mean, std) == own and not size:
        return student, None
    logger.info("The teacher sees images with mean %s and standard deviation %s", mean, std)
    return student, Preprocess(mean, std, size)


def _trained_pixels(node: CfgNode) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The mean and standard deviation of a library's weights; None for a file's, or none."""
    library, _, name = node.NAME.rpartition("/")
    weights = node.WEIGHTS
    if library not in LIBRARIES or not weights or Path(weights).suffix or Path(weights).is_file():
        return None
    return library_pixels(library, name, "" if weights == "DEFAULT" else weights)
