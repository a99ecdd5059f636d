"""How what a network's node gives is a map: channels second, channels last, or tokens.

Shapes: N images, C channels, H x W cells, L tokens.
"""

import math
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Layout", "as_map", "find_height_axis", "find_layout"]

MOST_PREFIX_TOKENS = 16  # class and register tokens before the patches


class Layout(NamedTuple):
    """How an output is a map (N, C, H, W).

    Args:
        height_axis: the axis of H: 2, or 1 where the channels come last, (N, H, W, C).
        prefix: number of tokens before those of the cells, in outputs (N, L, C); None for maps.
    """

    height_axis: int = 2
    prefix: int | None = None


def find_height_axis(shape: tuple[int, ...], wider: Any) -> int:
    """Find the axis of a map's height, 2 or 1; 0 where it is no map.

    Args:
        shape: shape of the output for a square image, of 4 axes.
        wider: output for an image that is wider; None where the network takes none.
    """
    if wider is not None:
        changed = [i for i in range(4) if wider.shape[i] != shape[i]]
        return 2 if changed == [3] else 1 if changed == [2] else 0
    _, a, b, c = shape
    return 2 if b == c else 1 if a == b else 0


def find_layout(output: Any, wider: Any, name: str) -> Layout:
    """Find how an output is a map.

    Args:
        output: output for a square image.
        wider: output for an image that is wider; None where the network takes none.
        name: the node's, for the sentence.

    Raises:
        ValueError: it is neither a map nor a vector (N, C) nor tokens of a square of cells.
    """
    shape = tuple(getattr(output, "shape", ()))
    if len(shape) == 2:
        return Layout()
    if len(shape) == 4 and shape[2:] == (1, 1):
        return Layout()
    if len(shape) == 4 and (axis := find_height_axis(shape, wider)):
        return Layout(axis)
    if len(shape) == 3:
        cells = math.isqrt(shape[1]) ** 2
        if cells > 1 and shape[1] - cells <= MOST_PREFIX_TOKENS:
            return Layout(prefix=shape[1] - cells)
    raise ValueError(
        "tap must give a map (N, C, H, W) or (N, H, W, C), tokens (N, L, C) of a square of cells, "
        f"or a vector (N, C); got {shape} from '{name}'"
    )


def as_map(output: Tensor, layout: Layout) -> Tensor:
    """An output as a map (N, C, H, W); a vector has one cell."""
    if layout.prefix is not None:
        side = math.isqrt(output.shape[1] - layout.prefix)
        return output[:, layout.prefix :].transpose(1, 2).unflatten(2, (side, side))
    if output.dim() == 2:
        return output[:, :, None, None]
    return output.permute(0, 3, 1, 2) if layout.height_axis == 1 else output
