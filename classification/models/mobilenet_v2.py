"""Inverted residuals for 32 x 32 images.

Shapes: N images, H x W cells; the stages tapped have H / 2^i x W / 2^i cells, i = 1 to 4.
"""

import torch
from torch import Tensor, nn

from classification.models.initialisation import initialise
from classification.models.tap_names import TapNames

__all__ = ["MobileNetV2"]

# Expansion of the first stage (None: the network's), channels at width 1, blocks, stride.
_STAGES = (
    (1, 16, 1, 1),
    (None, 24, 2, 1),
    (None, 32, 3, 2),
    (None, 64, 4, 2),
    (None, 96, 3, 1),
    (None, 160, 3, 2),
    (None, 320, 1, 1),
)
_TAPPED_STAGES = (1, 2, 4, 6)


def _convolution(
    in_channels: int, channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    padding = kernel // 2
    convolution = nn.Conv2d(
        in_channels, channels, kernel, stride, padding, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(channels)]


class _InvertedResidual(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == channels
        self.conv = nn.Sequential(
            *_convolution(in_channels, hidden, 1),
            nn.ReLU(),
            *_convolution(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.ReLU(),
            *_convolution(hidden, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.has_shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """Stem of stride 2, seven stages, 1x1 convolution, mean over the cells, linear classifier.

    Sandler et al., CVPR 2018, arXiv:1801.04381, with stride 1 in the second stage, ReLU for ReLU6,
    an expansion in the first stage's block too (by 1) and 1280 features at every width. The blocks
    end linearly: `tap_names` has one name for before and after the activation. Initialised as in
    torchvision: `initialise` and a classifier with standard deviation 0.01 and bias 0.

    Args:
        width: multiplies the channels of the stem and the stages.
        expansion: hidden channels of a block per channel of its input.
        num_classes: K.
    """

    tap_names: TapNames

    def __init__(self, *, width: float = 0.5, expansion: int = 6, num_classes: int) -> None:
        super().__init__()
        channels = int(32 * width)
        self.conv1 = nn.Sequential(*_convolution(3, channels, 3, stride=2), nn.ReLU())
        self.blocks = nn.Sequential()
        for own_expansion, full_channels, count, stride in _STAGES:
            stage = nn.Sequential()
            for i in range(count):
                out_channels = int(full_channels * width)
                block_stride = stride if i == 0 else 1
                stage.append(
                    _InvertedResidual(
                        channels, out_channels, block_stride, own_expansion or expansion
                    )
                )
                channels = out_channels
            self.blocks.append(stage)
        self.conv2 = nn.Sequential(*_convolution(channels, 1280, 1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(1280, num_classes))
        taps = tuple(self._output_of(stage) for stage in _TAPPED_STAGES)
        self.tap_names = TapNames(after=taps, before=taps, pooled="flatten")
        initialise(self, classifier_std=0.01)

    def _output_of(self, stage: int) -> str:
        last = _STAGES[stage][2] - 1
        # A stage of one block has no shortcut in its last.
        return f"blocks.{stage}.{last}.{'add' if last > 0 else 'conv.7'}"

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (N, 3, H, W).

        Returns:
            Logits, (N, K).
        """
        x = self.conv2(self.blocks(self.conv1(images)))  # (N, 1280, H / 16, W / 16)
        return self.classifier(torch.flatten(self.pool(x), 1))
