"""A loss's weight that holds its gradient on the student at a share of the student's own.

A fixed weight means another strength in each network and at each time of a training: a loss on
features falls and rises otherwise than the student's own. Here the weight is what makes the norms
of both gradients, on the tensors by which a method reads the student, stand in a fixed relation.
Esser et al., "Taming Transformers for High-Resolution Image Synthesis", CVPR 2021, equation 7,
weigh a loss so; Chen et al., "GradNorm", ICML 2018, balance tasks by the norms of their gradients.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reviewkd_det.core.processes import sum_over_processes

__all__ = ["GradientShare", "gradient_norms"]

PERIOD = 25  # calls from one measurement to the next
MEMORY = 0.5  # what a measurement leaves of the weight before, in logarithms
FLOAT16_FACTOR = 2.0**10  # keeps small gradients in float16 from becoming 0


class GradientShare(nn.Module):
    """The weight that gives a loss its share, measured at every 25th call in training and smoothed.

    The weight and the number of steps are in the state dict, so a run goes on with them.

    Args:
        share: norm of the weighted loss's gradient in those of the student's own loss, above 0.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.steps = 0
        self.weight = 1.0  # until the first measurement
        self.is_measured = False

    def measure(self, own: Tensor | None, loss: Tensor, points: Sequence[Tensor]) -> None:
        """Take notice of a training step, and measure where it is time to.

        Args:
            own: sum of the student's own losses, shape (); None without any, which leaves the
                weight at 1.
            loss: the unweighted loss, shape ().
            points: tensors of the student through which both losses reach it.
        """
        is_due = self.steps % PERIOD == 0 or not self.is_measured
        self.steps += 1
        if not is_due or own is None or not points:
            return
        norms = gradient_norms((own, loss), points)
        if not all(math.isfinite(x) and x > 0 for x in norms):
            return  # a step that is left out, or a method without a loss here
        found = self.share * norms[0] / norms[1]
        self.weight = self.weight**MEMORY * found ** (1 - MEMORY) if self.is_measured else found
        self.is_measured = True

    def get_extra_state(self) -> dict[str, Any]:
        """The weight and the steps so far."""
        return {"weight": self.weight, "steps": self.steps, "is_measured": self.is_measured}

    def set_extra_state(self, state: Any) -> None:
        """Go on with a saved weight."""
        self.weight, self.steps = float(state["weight"]), int(state["steps"])
        self.is_measured = bool(state["is_measured"])


def gradient_norms(losses: Sequence[Tensor], points: Sequence[Tensor]) -> list[float]:
    """Norms of the gradients of losses on some tensors, over the batches of all processes.

    Args:
        losses: losses, shape () each, whose graph is kept.
        points: tensors through which they reach a network.

    Returns:
        A norm for each loss; 0 where it does not depend on the tensors.
    """
    return [
        math.sqrt(x) for x in sum_over_processes([_squared_norm(loss, points) for loss in losses])
    ]


def _squared_norm(loss: Tensor, points: Sequence[Tensor]) -> float:
    factor = FLOAT16_FACTOR if any(x.dtype == torch.float16 for x in points) else 1.0
    if not loss.requires_grad:
        return 0.0
    found = torch.autograd.grad(loss * factor, points, retain_graph=True, allow_unused=True)
    squares = [x.float().square().sum() for x in found if x is not None]
    return float(torch.stack(squares).sum()) if squares else 0.0
