"""Channel splits and shuffles, for 32 x 32 images.

Shapes: N images, H x W cells; stage i of 1 to 3 has H / 2^i x W / 2^i cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classification.models.tap_names import TapNames

__all__ = ["ShuffleNetV2"]

_STEM_CHANNELS = 24


def _pointwise(in_channels: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, 1, bias=False)


def _depthwise(channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)


class _Block(nn.Module):
    """Half of the channels pass, half are convolved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = _pointwise(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv2 = _depthwise(half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = _pointwise(half, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.shuffle = nn.ChannelShuffle(2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        passed, y = x.chunk(2, dim=1)  # (N, C / 2, H, W) each
        y = self.relu1(self.bn1(self.conv1(y)))
        y = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        # The half that passes left a ReLU in the block before, so one more changes nothing: the
        # activation can come last, and what is tapped before it is what it reads.
        return self.relu(self.shuffle(torch.cat([passed, y], 1)))


class _StridedBlock(nn.Module):
    """Both halves are convolved from all channels."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = _depthwise(in_channels, 2)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = _pointwise(in_channels, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = _pointwise(in_channels, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu1 = nn.ReLU()
        self.conv4 = _depthwise(half, 2)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = _pointwise(half, half)
        self.bn5 = nn.BatchNorm2d(half)
        self.shuffle = nn.ChannelShuffle(2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        left = self.bn2(self.conv2(self.bn1(self.conv1(x))))  # (N, C / 2, H / 2, W / 2)
        right = self.relu1(self.bn3(self.conv3(x)))
        right = self.bn5(self.conv5(self.bn4(self.conv4(right))))  # (N, C / 2, H / 2, W / 2)
        return self.relu(self.shuffle(torch.cat([left, right], 1)))


def _stage(count: int, in_channels: int, channels: int) -> nn.Sequential:
    first = _StridedBlock(in_channels, channels)
    return nn.Sequential(first, *(_Block(channels) for _ in range(count - 1)))


class ShuffleNetV2(nn.Module):
    """1x1 stem, three stages, 1x1 convolution, mean over the cells, linear classifier.

    Ma et al., ECCV 2018, arXiv:1807.11164, width 1. Initialised by PyTorch's default, as in
    torchvision.

    Args:
        channels: channels of each of the three stages.
        blocks: number of blocks in each of the three stages, the one with a stride included.
        pooled_channels: channels of the vector that the classifier reads.
        num_classes: K.
    """

    tap_names: TapNames

    def __init__(
        self,
        *,
        channels: Sequence[int] = (116, 232, 464),
        blocks: Sequence[int] = (4, 8, 4),
        pooled_channels: int = 1024,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.conv1 = _pointwise(3, _STEM_CHANNELS)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.relu1 = nn.ReLU()
        fine, middle, coarse = channels
        n1, n2, n3 = blocks
        self.layer1 = _stage(n1, _STEM_CHANNELS, fine)
        self.layer2 = _stage(n2, fine, middle)
        self.layer3 = _stage(n3, middle, coarse)
        self.conv2 = _pointwise(coarse, pooled_channels)
        self.bn2 = nn.BatchNorm2d(pooled_channels)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(pooled_channels, num_classes)
        last = [f"layer{i}.{count - 1}" for i, count in enumerate(blocks, start=1)]
        self.tap_names = TapNames(
            after=tuple(f"{name}.relu" for name in last),
            before=tuple(f"{name}.shuffle" for name in last),
            pooled="flatten",
        )

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (N, 3, H, W).

        Returns:
            Logits, (N, K).
        """
        x = self.relu1(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))  # (N, C, H / 8, W / 8)
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.linear(torch.flatten(self.pool(x), 1))
