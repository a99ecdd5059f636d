"""The gated sum of a level and a coarser one, with the gradient by hand.

Shapes: N images, M channels, H x W cells.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["GatedSum", "resize_nearest"]


def resize_nearest(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps to (H, W) by the nearest cell; those of that size are given as they are."""
    height, width = size
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, size=(height, width), mode="nearest")


class GatedSum(torch.autograd.Function):
    """x * g1 + resize(r) * g2, of which the resized residual is not kept: it is made again.

    Shapes: x (N, M, H, W), r (N, M, any, any), gates (N, 2, H, W).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, gates: Tensor) -> Tensor:
        ctx.save_for_backward(x, residual, gates)
        return (x * gates[:, 0:1]).addcmul_(resize_nearest(residual, x.shape[-2:]), gates[:, 1:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, residual, gates = ctx.saved_tensors
        size, coarse_size = list(x.shape[-2:]), list(residual.shape)
        product = gradient * x
        for_x_gate = product.sum(1)  # (N, H, W)
        for_residual_gate = torch.mul(gradient, resize_nearest(residual, size), out=product).sum(1)
        for_residual = torch.mul(gradient, gates[:, 1:2], out=product)
        if size != coarse_size[-2:]:
            for_residual = torch.ops.aten.upsample_nearest2d_backward(
                for_residual, size, coarse_size
            )
        return (
            gradient * gates[:, 0:1],
            for_residual,
            torch.stack([for_x_gate, for_residual_gate], dim=1),
        )
