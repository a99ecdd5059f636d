"""Feature maps of any traceable classifier, tapped by node name.

Shapes: N images, C channels, H x W cells of one level, K classes. Level lists run from high to low
resolution. A node is named as torchvision's feature extraction names it: the path of its module,
or the path of the module that calls it and the function.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reviewkd_det.common.tracing.graph import build_tapped
from reviewkd_det.core import Level, View

__all__ = ["TappedModel"]


class TappedModel(nn.Module):
    """Run a classifier once for its logits and the maps of some of its nodes.

    The classifier is traced, not edited, and shares its parameters with the traced one. Its layers
    that overwrite their input stop doing so, else a map before such a layer would be lost.

    Args:
        model: maps images (N, 3, H, W) to logits (N, K).
        names: nodes whose outputs are the levels; a vector (N, C) becomes a level of one cell.
            None are needed, and then nothing is traced.
        key: where the names are from, for error sentences.

    Raises:
        ValueError: the model cannot be traced, or has no node of a name.
    """

    def __init__(self, model: nn.Module, names: Sequence[str] = (), key: str = "taps") -> None:
        super().__init__()
        self.names = tuple(names)
        if not names:
            self.net = model
            return
        self.net = build_tapped(model, names, key)

    def forward(self, images: Tensor) -> View:
        """Classify.

        Args:
            images: (N, 3, H, W), normalised.

        Raises:
            ValueError: a tapped node gives neither a map nor a vector.
        """
        if not self.names:
            return View((), self.net(images))
        logits, levels = self.net(images)
        named = zip(self.names, levels, strict=True)
        return View([_as_map(level, name) for name, level in named], logits)

    @torch.no_grad()
    def find_levels(self, image_size: int) -> tuple[Level, ...]:
        """The levels for images of that many pixels a side: one dummy forward."""
        was_training = self.training
        device = next(self.parameters()).device
        levels = self.eval()(torch.zeros(1, 3, image_size, image_size, device=device)).levels
        self.train(was_training)
        return tuple(
            Level(name, level.shape[1], (level.shape[2], level.shape[3]))
            for name, level in zip(self.names, levels, strict=True)
        )


def _as_map(output: Any, name: str) -> Tensor:
    shape = tuple(getattr(output, "shape", ()))
    if len(shape) not in (2, 4):
        raise ValueError(
            f"tap must give a map (N, C, H, W) or a vector (N, C); got {shape} from '{name}'"
        )
    return output if len(shape) == 4 else output[:, :, None, None]
