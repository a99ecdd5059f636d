"""Thin residual networks for 32 x 32 images.

Shapes: N images, H x W cells; the three stages have H x W, H/2 x W/2 and H/4 x W/4 cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classification.models.initialisation import initialise
from classification.models.tap_names import TapNames

__all__ = ["ResNet", "projection"]


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Make the shortcut of a block that changes its input's shape ("option B")."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        changes = stride != 1 or in_channels != channels
        self.downsample = projection(in_channels, channels, stride) if changes else None
        # Not in place: the sum before it is tapped.
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)) + shortcut)


def _stage(blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    first = _Block(in_channels, channels, stride)
    return nn.Sequential(first, *(_Block(channels, channels, 1) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """Stem, three stages of basic blocks, mean over the cells, linear classifier.

    6n + 2 layers for n blocks per stage. He et al., CVPR 2016, arXiv:1512.03385, section 4.2, with
    a projection where a block changes the shape. Initialised as in `initialise`, the classifier
    by PyTorch's default.

    Args:
        blocks_per_stage: number of blocks in each of the three stages.
        channels: channels of the stem and of each of the three stages.
        num_classes: K.
    """

    tap_names: TapNames

    def __init__(
        self,
        *,
        blocks_per_stage: int,
        channels: Sequence[int] = (16, 16, 32, 64),
        num_classes: int,
    ) -> None:
        super().__init__()
        stem, fine, middle, coarse = channels
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.layer1 = _stage(blocks_per_stage, stem, fine, 1)
        self.layer2 = _stage(blocks_per_stage, fine, middle, 2)
        self.layer3 = _stage(blocks_per_stage, middle, coarse, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(coarse, num_classes)
        last = [f"layer{i}.{blocks_per_stage - 1}" for i in (1, 2, 3)]
        self.tap_names = TapNames(
            after=tuple(f"{block}.relu2" for block in last),
            before=tuple(f"{block}.add" for block in last),
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
        x = self.layer3(self.layer2(self.layer1(x)))  # (N, C, H / 4, W / 4)
        return self.fc(torch.flatten(self.pool(x), 1))
