"""Classification networks: ours for CIFAR, torchvision's and timm's."""

import difflib
from collections.abc import Callable
from functools import partial

from torch import nn

from classification.models.libraries import (
    create_timm_model,
    create_torchvision_model,
    torchvision_names,
)
from classification.models.mobilenet_v2 import MobileNetV2
from classification.models.resnet import ResNet
from classification.models.resnet_cifar_stem import BasicBlock, Bottleneck, CifarStemResNet
from classification.models.shufflenet_v1 import ShuffleNetV1
from classification.models.shufflenet_v2 import ShuffleNetV2
from classification.models.tap_names import TapNames
from classification.models.vgg import VGG
from classification.models.wide_resnet import WideResNet

__all__ = ["MODELS", "TapNames", "create_model"]

_WIDE = (32, 64, 128, 256)

# Ours: each builder takes num_classes. The names are those of the published CIFAR checkpoints.
MODELS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{6 * n + 2}": partial(ResNet, blocks_per_stage=n) for n in (1, 2, 3, 5, 7, 9, 18)},
    "resnet8x4": partial(ResNet, blocks_per_stage=1, channels=_WIDE),
    "resnet32x4": partial(ResNet, blocks_per_stage=5, channels=_WIDE),
    "ResNet18": partial(CifarStemResNet, block=BasicBlock, blocks=(2, 2, 2, 2)),
    "ResNet50": partial(CifarStemResNet, block=Bottleneck, blocks=(3, 4, 6, 3)),
    "wrn_16_1": partial(WideResNet, blocks_per_stage=2, widen_factor=1),
    "wrn_16_2": partial(WideResNet, blocks_per_stage=2, widen_factor=2),
    "wrn_40_1": partial(WideResNet, blocks_per_stage=6, widen_factor=1),
    "wrn_40_2": partial(WideResNet, blocks_per_stage=6, widen_factor=2),
    "vgg8": partial(VGG, convolutions=(1, 1, 1, 1, 1)),
    "vgg11": partial(VGG, convolutions=(1, 1, 2, 2, 2)),
    "vgg13": partial(VGG, convolutions=(2, 2, 2, 2, 2)),
    "vgg16": partial(VGG, convolutions=(2, 2, 3, 3, 3)),
    "vgg19": partial(VGG, convolutions=(2, 2, 4, 4, 4)),
    "MobileNetV2": MobileNetV2,
    "ShuffleV1": ShuffleNetV1,
    "ShuffleV2": ShuffleNetV2,
}


def create_model(name: str, *, num_classes: int, weights: str = "") -> nn.Module:
    """Build a network that maps images (N, 3, H, W) to logits (N, num_classes).

    Args:
        name: a key of `MODELS`, `torchvision/NAME` or `timm/NAME`.
        num_classes: at least 2.
        weights: "" draws them. torchvision: a name of its weights API, such as DEFAULT or
            IMAGENET1K_V1. timm: DEFAULT or a tag, such as a1_in1k. Ours have none of their own.

    Returns:
        The network, in train mode; ours have `tap_names`.

    Raises:
        KeyError: no model or weights of this name; the sentence names the nearest or all.
        ValueError: fewer than 2 classes, or weights for a model that has none.
        ImportError: a timm model without timm.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2; got {num_classes}")
    library, _, own_name = name.rpartition("/")
    if library == "torchvision":
        return create_torchvision_model(own_name, num_classes=num_classes, weights=weights)
    if library == "timm":
        return create_timm_model(own_name, num_classes=num_classes, weights=weights)
    if name not in MODELS:
        raise KeyError(f"model must be known; got {name}; the nearest are {_nearest(name)}")
    if weights:
        raise ValueError(
            f"weights must be '' for {name}, which has none of its own; got {weights!r}"
        )
    return MODELS[name](num_classes=num_classes)


def _nearest(name: str) -> str:
    """Name the three most similar models, whatever the case and the library."""
    known = [*MODELS, *(f"torchvision/{other}" for other in torchvision_names())]
    wanted = name.rpartition("/")[2].lower()

    def similarity(other: str) -> float:
        bare = other.rpartition("/")[2].lower()
        return difflib.SequenceMatcher(None, wanted, bare).ratio()

    return ", ".join(sorted(known, key=similarity, reverse=True)[:3])
