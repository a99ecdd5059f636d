"""A network of another library as a Detectron2 backbone: its maps of several resolutions by name.

Shapes: images (N, 3, H, W); the level of stride s is (N, C, ceil(H / s), ceil(W / s)).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from reviewkd_det.common.tracing.layout import Layout, as_map

__all__ = ["STRIDES", "FeatureNet", "NetLevel", "find_levels", "level_name", "trained_names"]

STRIDES = (4, 8, 16, 32)  # of the levels of a backbone, before those that a pyramid adds
PROBE = (128, 192)  # pixels: neither equal nor a multiple of each other
COARSEST = 64  # the largest stride that is looked for


class NetLevel(NamedTuple):
    """One of the maps that a network gives.

    Args:
        place: its index in what the network returns.
        channels: number of channels.
        stride: pixels a cell, in both directions.
        layout: how the output is a map (N, C, H, W).
    """

    place: int
    channels: int
    stride: int
    layout: Layout = Layout()


def level_name(stride: int) -> str:
    """The name of a bottom-up level, as a ResNet's: res2 at stride 4 to res5 at stride 32."""
    return f"res{stride.bit_length() - 1}"


class FeatureNet(Backbone):
    """A network that returns a list of maps, some of which are the levels of a backbone.

    Args:
        net: maps images to a list of maps.
        levels: its maps that are levels, from high to low resolution.
        is_plain: whether all its blocks work at one resolution, as those of a plain transformer.
        has_trained_weights: whether the network's weights were loaded when it was built.
    """

    def __init__(
        self,
        net: nn.Module,
        levels: Sequence[NetLevel],
        *,
        is_plain: bool = False,
        has_trained_weights: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.levels = tuple(levels)
        self.is_plain = is_plain
        self.has_trained_weights = has_trained_weights

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the levels by name, from high to low resolution."""
        maps = self.net(images)
        return {level_name(x.stride): as_map(maps[x.place], x.layout) for x in self.levels}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each level."""
        return {
            level_name(x.stride): ShapeSpec(channels=x.channels, stride=x.stride)
            for x in self.levels
        }

    @property
    def size_divisibility(self) -> int:
        """The stride of the coarsest level, by which the images' sides are to be divisible."""
        return max(level.stride for level in self.levels)


def trained_names(model: nn.Module) -> set[str]:
    """Names of the weights that a model's networks had been trained to when they were built."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, FeatureNet) and module.has_trained_weights
        for name in module.state_dict()
    }


@torch.no_grad()
def find_levels(net: nn.Module, name: str) -> list[NetLevel]:
    """Find the levels of a network by one small image; of each resolution the last map.

    Args:
        net: maps images to a list of maps.
        name: the network's, for sentences.

    Raises:
        ValueError: it does not take images of any size, or gives no map of a power of 2 as stride.
    """
    was_training = net.training
    try:
        maps = net.eval()(torch.zeros(1, 3, *PROBE))
    except Exception as error:  # whatever a network's own code raises on a size
        raise ValueError(
            f"{name} must take images of any size that its stride divides; got, for "
            f"{PROBE[0]} x {PROBE[1]} pixels: {error}"
        ) from error
    finally:
        net.train(was_training)
    by_stride = {
        level.stride: level
        for index, value in enumerate(maps)
        if (level := _as_level(index, value)) is not None
    }
    if not by_stride:
        shapes = ", ".join(str(tuple(value.shape)) for value in maps)
        raise ValueError(
            f"{name} must give maps whose stride is a power of 2; got maps of {shapes} for "
            f"{PROBE[0]} x {PROBE[1]} pixels"
        )
    return [by_stride[stride] for stride in sorted(by_stride)]


def _as_level(index: int, value: Tensor) -> NetLevel | None:
    stride = 1
    while stride <= COARSEST:
        size = tuple(math.ceil(x / stride) for x in PROBE)
        if value.dim() == 4 and tuple(value.shape[2:]) == size:
            return NetLevel(index, value.shape[1], stride)
        if value.dim() == 4 and tuple(value.shape[1:3]) == size:
            return NetLevel(index, value.shape[3], stride, Layout(height_axis=1))
        stride *= 2
    return None
