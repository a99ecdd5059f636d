"""The scale of a teacher's features, measured once.

Shapes: a level is (N, C, H, W); L levels.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from reviewkd_det.core.training_step import is_training_step
from reviewkd_det.core.widen import widen

__all__ = ["LevelScale"]

logger = logging.getLogger(__name__)


class LevelScale(nn.Module):
    """Divide each level by its root mean square over the first batches, fixed from then on.

    While it measures, the root mean square so far is used, so each level of the first batch
    leaves with a mean square of 1. What was measured is in the state dict. Processes of a
    distributed run measure together. Only training steps are measured, see `is_training_step`.

    Args:
        levels: L.
        batches: number of batches that are measured.
        names: names of the levels, for the log; empty says nothing there.

    Raises:
        ValueError: a count is not positive.
    """

    mean_square: Tensor
    measured: Tensor

    def __init__(self, levels: int, batches: int = 10, names: Sequence[str] = ()) -> None:
        super().__init__()
        if levels < 1 or batches < 1:
            raise ValueError(f"levels and batches must be positive; got {levels} and {batches}")
        self.batches = batches
        self.names = tuple(names)
        self.register_buffer("mean_square", torch.ones(levels))
        self.register_buffer("measured", torch.zeros((), dtype=torch.long))
        # Both without asking the device: how many batches, and whether those are all.
        self._count = 0
        self._is_fixed = False
        self.register_load_state_dict_post_hook(_count_measured)  # type: ignore[no-untyped-call]

    @property
    def is_fixed(self) -> bool:
        """Whether all batches have been measured."""
        return self._is_fixed

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
        if is_training_step(self) and not self._is_fixed:
            self._measure(levels)
        return [widen(level) / scale for level, scale in zip(levels, self.scales, strict=True)]

    @torch.compiler.disable
    @torch.no_grad()
    def _measure(self, levels: Sequence[Tensor]) -> None:
        now = torch.stack([level.float().square().mean() for level in levels])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(now)
            now = now / distributed.get_world_size()
        self._count += 1
        self.measured += 1
        self.mean_square.lerp_(now.to(self.mean_square), 1 / self._count)
        # A level that is zero everywhere has no scale of its own.
        self.mean_square.masked_fill_(self.mean_square == 0, 1)
        self._is_fixed = self._count >= self.batches
        if self._is_fixed and self.names and not now.is_meta:
            scales = zip(self.names, self.scales.tolist(), strict=True)
            text = ", ".join(f"{name} {scale:.3g}" for name, scale in scales)
            logger.info("The teacher's features are divided by: %s", text)


def _count_measured(scale: LevelScale, _: Any) -> None:
    scale._count = int(scale.measured)
    scale._is_fixed = scale._count >= scale.batches
