"""One method, and several teachers.

Shapes: N images, K classes, M teachers.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from reviewkd_det.core.method import Method, Side, Truth, View, given
from reviewkd_det.core.processes import gather_rows
from reviewkd_det.core.training_step import is_training_step

__all__ = ["FromEach", "balanced_weights"]

# What a method says of itself, and who trains with it asks.
SAID = ("needs", "takes_binary", "remedy", "activation", "teaches_in_stage", "ends_with_stage",
        "learns_from_labels", "gaussian_warmup", "settings")  # fmt: skip
STEPS = 100  # of Frank and Wolfe's, at most
NEAR = 1e-10  # of the optimum, in a squared norm that is at most 1
SMALLEST = 1e-12  # norm of a gradient


def balanced_weights(gradients: Tensor, largest: float = 0.6) -> Tensor:
    """Weigh several losses so that their gradients oppose each other as little as they can.

    With u the gradients of norm 1, a minimises the norm of `sum of a * u` over weights from 0 to
    `largest` whose sum is 1; each is then divided by its gradient's norm, and all by their sum. Du
    et al., "Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient Space", NeurIPS
    2020. Found by the steps of Frank and Wolfe with an exact line search.

    Args:
        gradients: gradient of each loss, (M, D).
        largest: greatest weight before the division, at least 1 / M.

    Returns:
        The weights, (M,), without gradient: equal ones for equal gradients.
    """
    # A handful of numbers: on a GPU each small step would cost more than this one copy.
    rows = gradients.detach().to("cpu", torch.float64)
    norms = rows.norm(dim=1).clamp(min=SMALLEST)
    units = rows / norms[:, None]
    products, count = units @ units.T, len(rows)
    weights = torch.full((count,), 1 / count, dtype=rows.dtype)
    for _ in range(STEPS):
        slopes = products @ weights
        # The weights that a linear loss of these slopes would have: as much as may be on the least.
        order, room = slopes.argsort(stable=True), 1.0
        corner = torch.zeros_like(weights)
        for index in order.tolist():
            corner[index] = min(largest, room)
            room -= float(corner[index])
        way = corner - weights
        gain, curve = -float(way @ slopes), float(way @ products @ way)
        if gain < NEAR:
            break
        weights = weights + min(1.0, gain / curve if curve > 0 else 1.0) * way
    found: Tensor = weights / norms
    return (found / found.sum()).to(gradients)


class FromEach(Method):
    """Learn from each of several teachers by one method.

    The loss is the mean of those from each teacher, or weighted by `balanced_weights` of their
    gradients on the student's logits, averaged over the batch of all processes. Who reads the
    teachers gives the first one's view, with the views of the `others`; of the student's levels
    each method compares the last ones, as many as its teacher has.

    Args:
        methods: the method built for the student and each teacher, at least one.
        levels: number of levels that each compares.
        largest: greatest weight of a teacher where they are weighted, see `balanced_weights`; 0
            takes the mean.
    """

    def __init__(
        self, methods: Sequence[Method], levels: Sequence[int], *, largest: float = 0.0
    ) -> None:
        super().__init__(methods[0].settings, Side(), Side())
        self.each = nn.ModuleList(methods)
        self.levels, self.largest = tuple(levels), largest
        for name in SAID:
            setattr(self, name, getattr(methods[0], name))

    def meet_samples(self, classes: Tensor) -> None:
        """Let each method take notice of the training set."""
        for method in self._methods():
            method.meet_samples(classes)

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the parts of the loss from all teachers."""
        return self._compute([x.__call__ for x in self._methods()], student, teacher, truth)

    def forward_stage(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute them in the stage before training."""
        return self._compute([x.forward_stage for x in self._methods()], student, teacher, truth)

    def _methods(self) -> list[Method]:
        return [cast(Method, x) for x in self.each]

    def _compute(
        self,
        computes: Sequence[Callable[[View, View, Truth], dict[str, Tensor]]],
        student: View,
        teacher: View,
        truth: Truth,
    ) -> dict[str, Tensor]:
        """The weighted parts of each, summed by their names."""
        first = len(student.levels)
        found = []
        for compute, count, view in zip(
            computes, self.levels, (teacher, *teacher.others), strict=True
        ):
            own = student._replace(levels=student.levels[first - count :])
            found.append(compute(own, view, truth))
        weights = self._weights([torch.stack(list(x.values())).sum() for x in found], student)
        parts: dict[str, Tensor] = {}
        for weight, each in zip(weights, found, strict=True):
            for name, value in each.items():
                parts[name] = parts.get(name, 0.0) + weight * value
        return parts

    def _weights(self, losses: Sequence[Tensor], student: View) -> Sequence[Tensor | float]:
        count = len(losses)
        if not self.largest or not is_training_step(self):
            return [1 / count] * count
        logits = given(student.logits)
        gradients = [torch.autograd.grad(x, logits, retain_graph=True)[0] for x in losses]
        means = torch.stack([x.float().sum(dim=0) for x in gradients])  # losses are means over rows
        every = gather_rows(means).view(-1, *means.shape)  # by process
        return list(balanced_weights(every.sum(dim=0), self.largest))
