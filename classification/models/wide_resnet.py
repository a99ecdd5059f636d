"""Wide residual networks, whose blocks activate before each convolution.

Shapes: N images, H x W cells; the three stages have H x W, H/2 x W/2 and H/4 x W/4 cells.
"""

import torch
from torch import Tensor, nn

from classification.models.initialisation import initialise
from classification.models.tap_names import TapNames

__all__ = ["WideResNet"]


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        # The published checkpoints' spelling.
        self.convShortcut = (
            nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            if in_channels != channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        # The projection reads the activated input, the identity the raw one.
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return self.conv2(self.relu2(self.bn2(self.conv1(active)))) + shortcut


class _Stage(nn.Module):
    def __init__(self, blocks: int, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(_Block(in_channels, channels, stride))
        self.layer.extend(_Block(channels, channels, 1) for _ in range(blocks - 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """Stem, three stages, batch normalisation and ReLU, mean over the cells, linear classifier.

    6n + 4 layers for n blocks per stage; no dropout. A stage's output is the sum that leaves its
    last block; "before the activation" is that sum after the batch normalisation that the next
    stage, or the end of the network, begins with. Zagoruyko and Komodakis, BMVC 2016,
    arXiv:1605.07146. Initialised as in `initialise`, the classifier by PyTorch's default with
    bias 0.

    Args:
        blocks_per_stage: number of blocks in each of the three stages, n.
        widen_factor: multiplies the 16, 32 and 64 channels of the stages.
        num_classes: K.
    """

    tap_names: TapNames

    def __init__(self, *, blocks_per_stage: int, widen_factor: int, num_classes: int) -> None:
        super().__init__()
        fine, middle, coarse = (widen_factor * c for c in (16, 32, 64))
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = _Stage(blocks_per_stage, 16, fine, 1)
        self.block2 = _Stage(blocks_per_stage, fine, middle, 2)
        self.block3 = _Stage(blocks_per_stage, middle, coarse, 2)
        self.bn1 = nn.BatchNorm2d(coarse)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(coarse, num_classes)
        self.tap_names = TapNames(
            after=tuple(f"block{i}.layer.{blocks_per_stage - 1}.add" for i in (1, 2, 3)),
            before=("block2.layer.0.bn1", "block3.layer.0.bn1", "bn1"),
            pooled="flatten",
        )
        initialise(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (N, 3, H, W).

        Returns:
            Logits, (N, K).
        """
        x = self.block3(self.block2(self.block1(self.conv1(images))))  # (N, C, H / 4, W / 4)
        x = self.relu(self.bn1(x))
        return self.fc(torch.flatten(self.pool(x), 1))
