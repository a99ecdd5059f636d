"""Half precision where it is computed, float32 where it is compared."""

import torch
from torch import Tensor

__all__ = ["product", "widen"]


def widen(x: Tensor) -> Tensor:
    """Give a tensor in float32, or in its own type where that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def product(first: Tensor, second: Tensor) -> Tensor:
    """Matrix product in the inputs' own precision, whatever autocast says: half would overflow."""
    with torch.autocast(first.device.type, enabled=False):
        return first @ second
