"""Networks of plain 3x3 convolutions.

Shapes: N images, H x W cells; block i has H / 2^i x W / 2^i cells, block 4 as many as block 3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classification.models.initialisation import initialise
from classification.models.tap_names import TapNames

__all__ = ["VGG"]


def _block(in_channels: int, channels: int, convolutions: int) -> nn.Sequential:
    block = nn.Sequential()
    for _ in range(convolutions):
        convolution = nn.Conv2d(in_channels, channels, 3, padding=1)
        # Not in place: the last normalisation is tapped.
        block.extend([convolution, nn.BatchNorm2d(channels), nn.ReLU()])
        in_channels = channels
    return block


class VGG(nn.Module):
    """Five blocks, max pooling between the first four, mean over the cells, linear classifier.

    Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556, with batch normalisation and one linear
    layer. There is no pooling between blocks 3 and 4, whatever the images' size, and block 0 is
    the stem. Initialised as in torchvision: `initialise` and a classifier with standard deviation
    0.01 and bias 0.

    Args:
        convolutions: number of convolutions in each of the five blocks.
        num_classes: K.
    """

    tap_names: TapNames

    def __init__(self, *, convolutions: Sequence[int], num_classes: int) -> None:
        super().__init__()
        n0, n1, n2, n3, n4 = convolutions
        self.block0 = _block(3, 64, n0)
        self.block1 = _block(64, 128, n1)
        self.block2 = _block(128, 256, n2)
        self.block3 = _block(256, 512, n3)
        self.block4 = _block(512, 512, n4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(512, num_classes)
        stages = list(enumerate(convolutions))[1:]
        self.tap_names = TapNames(
            after=tuple(f"block{i}.{3 * n - 1}" for i, n in stages),
            before=tuple(f"block{i}.{3 * n - 2}" for i, n in stages),
            pooled="flatten",
        )
        initialise(self, classifier_std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (N, 3, H, W), H and W at least 8.

        Returns:
            Logits, (N, K).
        """
        x = self.block0(images)
        for block in (self.block1, self.block2, self.block3):
            x = block(F.max_pool2d(x, 2))  # (N, C, H / 2, W / 2)
        x = self.block4(x)
        return self.classifier(torch.flatten(self.pool(x), 1))
