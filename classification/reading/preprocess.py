"""What a network sees of images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_dtype

__all__ = ["Preprocess"]


class Preprocess(nn.Module):
    """Scale uint8 images to [0, 1], subtract the mean and divide by the standard deviation.

    Unlike torchvision's `Normalize` it keeps both on the device, so that a step copies nothing
    there and can be a CUDA graph. The output's memory has its channels last, which convolutions run
    faster on.

    Args:
        mean: mean of each channel of images in [0, 1].
        std: standard deviation of each channel of images in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Make the input, float32, of uint8 images, (N, C, H, W) both."""
        images = images.contiguous(memory_format=torch.channels_last)
        scaled: Tensor = to_dtype(images, torch.float32, scale=True)
        return (scaled - self.mean) / self.std
