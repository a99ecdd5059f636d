"""A teacher's backbone, which takes the student's images and sees them its own way.

Shapes: N images, each (3, h, w); H x W is the padded size the student used.
"""

import logging
from collections.abc import Sequence

import torch
from detectron2.modeling import Backbone
from torch import Tensor, nn

from reviewkd_det.common.tensors.compiled import compiled_or_plain
from reviewkd_det.d2.reading.images import channels_first, cut_to, normalize_and_pad, size_for
from reviewkd_det.d2.teacher.cache import LevelCache
from reviewkd_det.d2.teacher.heads import TeacherHeads

__all__ = ["PRECISIONS", "TeacherBackbone"]

logger = logging.getLogger(__name__)
PRECISIONS = {
    "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
}  # fmt: skip


class TeacherBackbone(nn.Module):
    """A backbone that takes the student's images and sees them its own way.

    Channels are reordered before they are normalised with the teacher's mean and std. The
    normalised images are padded with zeros to the student's padded size, and on to what the
    backbone needs where that is more; its levels are then cut to the student's padded size. Inside,
    maps have their channels last, which convolutions without gradients are faster with.

    Args:
        backbone: the teacher's backbone.
        pixel_mean: mean of each channel, in the teacher's channel order, in pixel values.
        pixel_std: standard deviation of each channel, in the teacher's channel order, in pixel
            values.
        reverse_channels: whether the student's channel order is the reverse of the teacher's.
        heads: the teacher's heads that methods read.
        precision: precision of the backbone, which is converted, and of the levels.
        compile_backbone: whether the backbone runs through torch.compile, where it can be.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        *,
        reverse_channels: bool,
        heads: TeacherHeads | None = None,
        precision: torch.dtype = torch.float32,
        compile_backbone: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.convert(precision)
        self._run = (
            compiled_or_plain(backbone, logger, dynamic=True)
            if compile_backbone
            else backbone.__call__
        )
        self.heads = heads or TeacherHeads()
        self.cache: LevelCache | None = None  # what remembers levels; None computes all
        self.reverse_channels = reverse_channels
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @property
    def precision_name(self) -> str:
        """The precision as the config names it."""
        return next(name for name, kind in PRECISIONS.items() if kind == self.precision)

    def convert(self, precision: torch.dtype) -> "TeacherBackbone":
        """Convert the backbone to a precision, in place."""
        self.backbone.to(precision).to(memory_format=torch.channels_last)
        self.precision = precision
        return self

    def forward(self, images: Sequence[Tensor], padded_size: tuple[int, int]) -> dict[str, Tensor]:
        """Compute the pyramid.

        Args:
            images: (3, h, w) each, pixel values in the student's channel order.
            padded_size: (H, W), at least every image's own size.

        Returns:
            The levels by name, (N, C, H / stride, W / stride) each, rounded up, contiguous.
        """
        if self.cache is None:
            return self._compute(images, padded_size)
        return self.cache(images, padded_size, self._compute)

    def _compute(self, images: Sequence[Tensor], padded_size: tuple[int, int]) -> dict[str, Tensor]:
        own_size = size_for(self.backbone, padded_size)
        batch = [
            normalize_and_pad(
                image.flip(0) if self.reverse_channels else image,
                self.pixel_mean,
                self.pixel_std,
                own_size,
            )
            for image in images
        ]
        seen = torch.stack(batch).to(self.precision, memory_format=torch.channels_last)
        levels = {name: channels_first(level) for name, level in self._run(seen).items()}
        if own_size == padded_size:
            return levels
        shapes = self.backbone.output_shape()
        return {
            name: cut_to(level, padded_size, shapes[name].stride) for name, level in levels.items()
        }
