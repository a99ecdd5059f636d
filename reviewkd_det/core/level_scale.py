"""The scale of a teacher's features, measured once.

Shapes: a level is (N, C, H, W); L levels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn

__all__ = ["LevelScale"]


class LevelScale(nn.Module):
    """Divide each level by its root mean square over the first batches, fixed from then on.

    While it measures, the root mean square so far is used, so each level of the first batch
    leaves with a mean square of 1. What was measured is in the state dict. Processes of a
    distributed run measure together.

    Args:
        levels: L.
        batches: how many batches are measured, in training mode only.

    Raises:
        ValueError: a count is not positive.
    """

    mean_square: Tensor
    measured: Tensor

    def __init__(self, levels: int, batches: int = 10) -> None:
        super().__init__()
        if levels < 1 or batches < 1:
            raise ValueError(f"levels and batches must be positive; got {levels} and {batches}")
        self.batches = batches
        self.register_buffer("mean_square", torch.ones(levels))
        self.register_buffer("measured", torch.zeros((), dtype=torch.long))

    @property
    def is_fixed(self) -> bool:
        """Whether all batches have been measured."""
        return int(self.measured) >= self.batches

    @property
    def scales(self) -> Tensor:
        """The root mean square of each level, (L,)."""
        return self.mean_square.sqrt()

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Scale the levels.

        Args:
            levels: L maps, without gradient.

        Returns:
            The maps divided by their scale, in float32 or wider.

        Raises:
            ValueError: another number of levels.
        """
        if len(levels) != len(self.mean_square):
            raise ValueError(f"levels must number {len(self.mean_square)}; got {len(levels)}")
        if self.training and not self.is_fixed:
            self._measure(levels)
        return [
            level.to(torch.promote_types(level.dtype, torch.float32)) / scale
            for level, scale in zip(levels, self.scales, strict=True)
        ]

    @torch.no_grad()
    def _measure(self, levels: Sequence[Tensor]) -> None:
        now = torch.stack([level.float().square().mean() for level in levels])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(now)
            now = now / distributed.get_world_size()
        self.measured += 1
        if self.measured == 1:
            self.mean_square.copy_(now)
        else:
            self.mean_square.lerp_(now.to(self.mean_square), 1 / float(self.measured))
        # A level that is zero everywhere has no scale of its own.
        self.mean_square[self.mean_square == 0] = 1
