"""Grouped 1x1 convolutions and channel shuffles, for 32 x 32 images.

Shapes: N images, H x W cells; stage i of 1 to 3 has H / 2^i x W / 2^i cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classification.models.tap_names import TapNames

__all__ = ["ShuffleNetV1"]

_STEM_CHANNELS = 24


class _Block(nn.Module):
    def __init__(
        self, in_channels: int, channels: int, *, in_groups: int, groups: int, has_stride: bool
    ) -> None:
        super().__init__()
        # A block with a stride appends to its pooled input instead of adding to it.
        out_channels = channels - in_channels if has_stride else channels
        hidden = out_channels // 4
        stride = 2 if has_stride else 1
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, groups=in_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.relu1 = nn.ReLU()
        self.shuffle = nn.ChannelShuffle(in_groups)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(hidden, out_channels, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.pool = nn.AvgPool2d(3, 2, 1) if has_stride else None
        # Not in place: the sum before it is tapped.
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.shuffle(self.relu1(self.bn1(self.conv1(x))))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.pool is None:
            return self.relu(y + x)
        return self.relu(torch.cat([y, self.pool(x)], 1))


def _stage(
    count: int, in_channels: int, channels: int, *, in_groups: int, groups: int
) -> nn.Sequential:
    first = _Block(in_channels, channels, in_groups=in_groups, groups=groups, has_stride=True)
    stage = nn.Sequential(first)
    for _ in range(count - 1):
        stage.append(_Block(channels, channels, in_groups=groups, groups=groups, has_stride=False))
    return stage


class ShuffleNetV1(nn.Module):
    """Stem of one 1x1 convolution, three stages, mean over the cells, linear classifier.

    Zhang et al., CVPR 2018, arXiv:1707.01083, with a ReLU after the depthwise convolution too, as
    the published checkpoints have it. The first 1x1 convolution after the stem is not grouped.
    Initialised by PyTorch's default.

    Args:
        channels: channels of each of the three stages.
        blocks: number of blocks in each of the three stages, at least 2.
        groups: groups of the 1x1 convolutions.
        num_classes: K.
    """

    tap_names: TapNames

    def __init__(
        self,
        *,
        channels: Sequence[int] = (240, 480, 960),
        blocks: Sequence[int] = (4, 8, 4),
        groups: int = 3,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STEM_CHANNELS, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.relu = nn.ReLU()
        fine, middle, coarse = channels
        n1, n2, n3 = blocks
        self.layer1 = _stage(n1, _STEM_CHANNELS, fine, in_groups=1, groups=groups)
        self.layer2 = _stage(n2, fine, middle, in_groups=groups, groups=groups)
        self.layer3 = _stage(n3, middle, coarse, in_groups=groups, groups=groups)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(coarse, num_classes)
        last = [f"layer{i}.{count - 1}" for i, count in enumerate(blocks, start=1)]
        self.tap_names = TapNames(
            after=tuple(f"{name}.relu" for name in last),
            before=tuple(f"{name}.add" for name in last),
            pooled="flatten",
        )

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (N, 3, H, W).

        Returns:
            Logits, (N, K).
        """
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))  # (N, C, H / 8, W / 8)
        return self.linear(torch.flatten(self.pool(x), 1))
