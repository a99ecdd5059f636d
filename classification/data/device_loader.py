"""Batches cut and augmented on the device, for images small enough to be kept there.

Shapes: n images in all, N in a batch, p the padding in pixels; a device image is (3, H, W) uint8.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from classification.data.augment import Transform
from classification.data.batches import EpochBatches, EpochLoader
from reviewkd_det.common.runs.seeds import mix_seed

__all__ = ["DeviceLoader"]

_AUGMENTATION = 1  # tells this stream of random numbers from the one that shuffles
_ERASING = 3


class DeviceLoader(EpochLoader):
    """Crop at random after zero padding, and flip, a whole batch at once on the device.

    As torchvision's `RandomCrop((H, W), padding=p)` and `RandomHorizontalFlip()`: each of the
    (2p + 1)^2 offsets is as likely as the others, each image flips with probability 1/2. The draws
    of an image are a function of (seed, epoch, its index), so they depend neither on the device nor
    on the batch size, and several processes see together what one would see.

    Args:
        images: (n, 3, H, W), uint8.
        labels: (n,), int64.
        batches: the indices of each batch; its seed is that of the draws.
        crop_padding: p; 0 crops nothing.
        flip: whether images are flipped.
        erase: what is done to each image at the end.
        device: device that keeps images, their padding and labels.

    Raises:
        ValueError: If the images are not (n, 3, H, W) uint8, the labels or batches are for another
            number, or the padding is negative.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batches: EpochBatches,
        *,
        crop_padding: int = 0,
        flip: bool = False,
        erase: Transform | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ValueError(
                f"images must be (n, 3, H, W) uint8; got {tuple(images.shape)} {images.dtype}"
            )
        if not len(images) == len(labels) == batches.length:
            raise ValueError(
                "images, labels and batches must be of the same number; "
                f"got {len(images)}, {len(labels)} and {batches.length}"
            )
        if crop_padding < 0:
            raise ValueError(f"INPUT.CROP_PADDING must be 0 or more; got {crop_padding}")
        self.batches = batches
        self.crop_padding = crop_padding
        self.flip = flip
        self.erase = erase
        self.device = torch.device(device)
        height, width = images.shape[2:]
        padded = F.pad(images.to(self.device), (crop_padding,) * 4)
        # A view of every crop: (n, 3, 2p + 1, 2p + 1, H, W). Reading rows of it is three times as
        # fast as gathering single pixels.
        self._crops = padded.unfold(2, height, 1).unfold(3, width, 1)
        self.labels = labels.to(self.device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give (N, 3, H, W) uint8 images and (N,) int64 labels, on the device."""
        epoch, batches = self.batches.epoch, iter(self.batches)
        draws = self._draw(epoch)
        return (self._make(indices, epoch, draws) for indices in batches)

    def _make(
        self, indices: Tensor, epoch: int, draws: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        images, labels = self._cut(indices.to(self.device), *draws)
        return (self._erase(images, indices, epoch) if self.erase else images), labels

    def _draw(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        # On the CPU, whose random numbers are the same with every device. (n,) each.
        seed = mix_seed(self.batches.seed, epoch, _AUGMENTATION)
        generator = torch.Generator().manual_seed(seed)
        offsets = (2, self.batches.length)
        top, left = torch.randint(2 * self.crop_padding + 1, offsets, generator=generator)
        flipped = torch.rand(self.batches.length, generator=generator) < 0.5 * self.flip
        return top.to(self.device), left.to(self.device), flipped.to(self.device)

    def _cut(
        self, indices: Tensor, top: Tensor, left: Tensor, flipped: Tensor
    ) -> tuple[Tensor, Tensor]:
        images = self._crops[indices, :, top[indices], left[indices]]  # (N, 3, H, W)
        if self.flip:
            images = torch.where(flipped[indices, None, None, None], images.flip(3), images)
        return images, self.labels[indices]

    def _erase(self, images: Tensor, indices: Tensor, epoch: int) -> Tensor:
        assert self.erase is not None
        with torch.random.fork_rng(devices=[]):
            for place, index in enumerate(indices.tolist()):
                seed = mix_seed(self.batches.seed, epoch, _ERASING, index)
                torch.default_generator.manual_seed(seed)
                images[place] = self.erase(images[place])
        return images
