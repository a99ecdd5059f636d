"""An exponential moving average of a network's weights, beside the network that is trained."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["MovingAverage", "check_decay"]


class MovingAverage(AveragedModel):
    """PyTorch's averaged model, which also averages buffers and starts as fast as it can.

    After update number t, counted from 0, every floating-point parameter and buffer, such as the
    statistics of batch norm, is `d * average + (1 - d) * trained` with
    d = min(decay, (1 + t) / (10 + t)), so that a short run is not an average of its random start;
    update 0 copies. What holds integers, such as a count of batches, is copied each time.

    Args:
        model: network that is trained; it is copied.
        decay: the highest d, at least 0 and less than 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self._average, use_buffers=True)
        self.decay = decay
        self.module.requires_grad_(False)

    @property
    def updates(self) -> int:
        """How many updates there were."""
        return int(self.n_averaged)

    @torch.no_grad()
    def restart(self, model: nn.Module, updates: int = 0) -> None:
        """Take over the weights of a network.

        Args:
            model: network of the same kind.
            updates: updates that these weights are the average of; 0 for none.
        """
        self.module.load_state_dict(model.state_dict())
        self.n_averaged.fill_(updates)

    def _average(self, averaged: Any, current: Any, _: Tensor | int) -> None:
        if not averaged[0].is_floating_point():
            for ours, theirs in zip(averaged, current, strict=True):
                ours.copy_(theirs)
            return
        updates = self.updates
        decay = min(self.decay, (1 + updates) / (10 + updates))
        get_ema_multi_avg_fn(decay)(averaged, current, updates)


def check_decay(decay: float, key: str) -> None:
    """Check the decay of an average.

    Args:
        decay: the decay; 0 means no average.
        key: config key that gives it.

    Raises:
        ValueError: it is out of range.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"{key} must be at least 0 and less than 1; got {decay}")
