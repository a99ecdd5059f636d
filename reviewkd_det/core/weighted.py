"""A method with its weight over a training."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from reviewkd_det.core.gradient_share import GradientShare
from reviewkd_det.core.method import Method
from reviewkd_det.core.training_step import is_training_step

__all__ = ["Weighted", "acting_methods", "decay_factor", "warmup_factor"]


def warmup_factor(step: float, warmup_steps: float, *, gaussian: bool = False) -> float:
    """Grow from 0 to 1, then stay: with t = min(1, step / warmup_steps) it is t.

    Along a Gaussian it is `exp(-5 (1 - t)^2)`: Laine and Aila, "Temporal Ensembling for
    Semi-Supervised Learning", ICLR 2017, section 2.

    Args:
        step: how far the training is, in any unit, at least 0.
        warmup_steps: length of the warm-up in that unit; 0 means none.
        gaussian: whether it grows along a Gaussian instead of linearly.

    Returns:
        The factor, in [0, 1].

    Raises:
        ValueError: an argument is negative.
    """
    if step < 0 or warmup_steps < 0:
        raise ValueError(
            f"step and warmup_steps must not be negative; got {step} and {warmup_steps}"
        )
    part = 1.0 if step >= warmup_steps else step / warmup_steps
    return math.exp(-5 * (1 - part) ** 2) if gaussian else part


def decay_factor(step: float, decay_steps: float) -> float:
    """Fall linearly from 1 to 0, then stay: max(0, 1 - step / decay_steps).

    Distillation that ends early, for students much smaller than their teacher, is from Cho and
    Hariharan, "On the Efficacy of Knowledge Distillation", ICCV 2019.

    Args:
        step: how far the training is, in any unit, at least 0.
        decay_steps: step at which 0 is reached, in that unit; 0 means never.

    Returns:
        The factor, in [0, 1].
    """
    return max(0.0, 1.0 - step / decay_steps) if decay_steps else 1.0


class Weighted(NamedTuple):
    """A method, and how much its loss counts.

    Args:
        method: the method.
        loss_weight: factor of its loss, or what measures it while it trains.
        warmup_steps: steps over which that factor grows from 0.
        decay_steps: steps over which it falls linearly to 0, from the first on; 0: it does not.
        stage_steps: steps of its stage before training; 0: it has none.
    """

    method: Method
    loss_weight: float | GradientShare = 1.0
    warmup_steps: float = 0.0
    decay_steps: float = 0.0
    stage_steps: float = 0.0

    def factor(self, step: float) -> float:
        """The factor of the loss at a step, in the unit of the warm-up."""
        gaussian = self.method.gaussian_warmup
        warmup = warmup_factor(step, self.warmup_steps, gaussian=gaussian)
        weight = self.loss_weight
        if isinstance(weight, GradientShare):
            weight = weight.weight
        return weight * warmup * decay_factor(step, self.decay_steps)

    def measure(self, own: Tensor | None, loss: Tensor, points: Sequence[Tensor]) -> None:
        """Let a weight that is measured see a training step.

        Args:
            own: sum of the student's own losses; None without any.
            loss: the method's unweighted loss.
            points: tensors of the student by which the method reads it.
        """
        if isinstance(self.loss_weight, GradientShare) and is_training_step(self.method):
            self.loss_weight.measure(own, loss, points)

    def has_ended(self, step: float) -> bool:
        """Whether the factor is 0 from a step on, or the method over with its stage."""
        is_over = self.method.ends_with_stage and step > self.stage_steps > 0
        return is_over or 0 < self.decay_steps <= step

    def nothing(self, like: Tensor) -> Tensor:
        """The loss of a method that has ended: 0, shape ().

        Its parameters have a gradient of 0: several processes wait for that of every parameter.

        Args:
            like: a tensor on the device of the loss.
        """
        return sum((0.0 * x.sum() for x in self.method.parameters()), like.new_zeros(()))


def acting_methods(methods: Mapping[str, Weighted], step: float) -> tuple[tuple[str, ...], bool]:
    """Which methods act at a step, counted from 1, and whether it is in a stage before training.

    In a stage those with a stage act alone: the student's own losses and the other methods wait.

    Args:
        methods: the methods by name.
        step: number of the step, in the unit of their stages.

    Returns:
        The names, and whether the stage's losses are meant.
    """
    in_stage = tuple(name for name, x in methods.items() if step <= x.stage_steps)
    if in_stage:
        return in_stage, True
    return tuple(name for name, x in methods.items() if not x.has_ended(step)), False
