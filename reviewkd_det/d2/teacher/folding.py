"""A frozen network without its batch norms: each is a scale and a shift of the convolution before.

Folding changes no output beyond rounding, saves the norms' passes over every map, and fits frozen
networks alone: the norms can no longer be trained.
"""

from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["fold_batch_norms"]

NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d)
LIBRARIES = ("torch", "detectron2")


def fold_batch_norms(network: nn.Module) -> int:
    """Fold batch norms, with their running statistics, into the convolutions before them, in place.

    Found are Detectron2's convolutions that hold their norm, and a convolution directly followed by
    a norm in a `Sequential`, as in torchvision's networks.

    Args:
        network: in eval mode.

    Returns:
        How many norms were folded.

    Raises:
        RuntimeError: the network is in training mode, where norms use each batch's statistics.
    """
    if network.training:
        raise RuntimeError("network must be in eval mode to be folded; got it in training mode")
    folded = 0
    modules: list[Any] = list(network.modules())
    for module in modules:
        norm = getattr(module, "norm", None)
        if isinstance(module, nn.Conv2d) and _is_norm_alone(norm):
            _fold(module, norm)
            setattr(module, "norm", None)  # noqa: B010, of Detectron2's own kind of convolution
            folded += 1
        if isinstance(module, nn.Sequential):
            for i in range(len(module) - 1):
                convolution, norm = module[i], module[i + 1]
                if isinstance(convolution, nn.Conv2d) and _is_norm_alone(norm):
                    _fold(convolution, norm)
                    module[i + 1] = nn.Identity()
                    folded += 1
    return folded


def _is_norm_alone(module: Any) -> bool:
    """Whether it is a batch norm and no more: timm's kinds hold the activation that follows."""
    library = type(module).__module__.partition(".")[0]
    return isinstance(module, NORMS) and library in LIBRARIES


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: Any) -> None:
    dtype = convolution.weight.dtype
    weight, bias = fuse_conv_bn_weights(  # in float64: the product is rounded once
        convolution.weight.double(),
        None if convolution.bias is None else convolution.bias.double(),
        norm.running_mean.double(),
        norm.running_var.double(),
        norm.eps,
        norm.weight.double(),
        norm.bias.double(),
    )
    convolution.weight, convolution.bias = (
        nn.Parameter(values.to(dtype), requires_grad=False) for values in (weight, bias)
    )
