"""A method with its weight over a training."""

from typing import NamedTuple

from reviewkd_det.core.method import Method

__all__ = ["Weighted", "warmup_factor"]


def warmup_factor(step: float, warmup_steps: float) -> float:
    """Grow linearly from 0 to 1, then stay: min(1, step / warmup_steps).

    Args:
        step: how far the training is, in any unit, at least 0.
        warmup_steps: length of the warm-up in that unit; 0 means none.

    Returns:
        The factor, in [0, 1].

    Raises:
        ValueError: an argument is negative.
    """
    if step < 0 or warmup_steps < 0:
        raise ValueError(
            f"step and warmup_steps must not be negative; got {step} and {warmup_steps}"
        )
    return 1.0 if step >= warmup_steps else step / warmup_steps


class Weighted(NamedTuple):
    """A method, and how much its loss counts.

    Args:
        method: the method.
        loss_weight: factor of its loss.
        warmup_steps: steps over which that factor grows linearly from 0.
    """

    method: Method
    loss_weight: float = 1.0
    warmup_steps: float = 0.0

    def factor(self, step: float) -> float:
        """The factor of the loss at a step, in the unit of the warm-up."""
        return self.loss_weight * warmup_factor(step, self.warmup_steps)
