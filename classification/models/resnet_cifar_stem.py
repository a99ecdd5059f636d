"""The four-stage residual networks of ImageNet with a stem for 32 x 32 images.

Shapes: N images, H x W cells; stage i of 1 to 4 has H / 2^(i - 1) x W / 2^(i - 1) cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classification.models.initialisation import initialise
from classification.models.resnet import projection
from classification.models.tap_names import TapNames

__all__ = ["BasicBlock", "Bottleneck", "CifarStemResNet"]


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return projection(in_channels, out_channels, stride)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; the output has `width` channels.

    Args:
        in_channels: channels of the input.
        width: channels of both convolutions.
        stride: stride of the first convolution and the shortcut, in cells.
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(in_channels, width, stride)
        # Not in place: the sum before it is tapped.
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, width, H / stride, W / stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 around a shortcut; the output has 4 * `width` channels.

    Args:
        in_channels: channels of the input.
        width: channels of the 3x3 convolution.
        stride: stride of the 3x3 convolution and the shortcut, in cells.
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut = _shortcut(in_channels, 4 * width, stride)
        # Not in place: the sum before it is tapped.
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, 4 * width, H / stride, W / stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


def _stage(
    block: type[BasicBlock | Bottleneck], count: int, in_channels: int, width: int, stride: int
) -> nn.Sequential:
    stage = nn.Sequential(block(in_channels, width, stride))
    stage.extend(block(width * block.expansion, width, 1) for _ in range(count - 1))
    return stage


class CifarStemResNet(nn.Module):
    """One 3x3 convolution, four stages, mean over the cells, linear classifier.

    He et al., CVPR 2016, arXiv:1512.03385, table 1, but for the stem, which
    keeps the resolution; a bottleneck's stride is in its 3x3 convolution.
    Initialised as in `initialise`, the classifier by PyTorch's default.

    Args:
        block: the kind of block.
        blocks: number of blocks in each of the four stages.
        num_classes: K.
    """

    tap_names: TapNames

    def __init__(
        self, *, block: type[BasicBlock | Bottleneck], blocks: Sequence[int], num_classes: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        n1, n2, n3, n4 = blocks
        e = block.expansion
        self.layer1 = _stage(block, n1, 64, 64, 1)
        self.layer2 = _stage(block, n2, 64 * e, 128, 2)
        self.layer3 = _stage(block, n3, 128 * e, 256, 2)
        self.layer4 = _stage(block, n4, 256 * e, 512, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(512 * e, num_classes)
        last = [f"layer{i}.{count - 1}" for i, count in enumerate(blocks, start=1)]
        self.tap_names = TapNames(
            after=tuple(f"{name}.relu" for name in last),
            before=tuple(f"{name}.add" for name in last),
            pooled="flatten",
        )
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (N, 3, H, W).

        Returns:
            Logits, (N, K).
        """
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, C, H / 8, W / 8)
        return self.linear(torch.flatten(self.pool(x), 1))
