"""Whether a student's levels come nearer to its teacher's, the fusions left aside."""

import logging
import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from reviewkd_det.core import linear_cka

__all__ = ["PERIOD", "LevelSimilarity"]

logger = logging.getLogger(__name__)
PERIOD = 100  # iterations from one measurement to the next
JUDGED_AT = 1000  # iteration


class LevelSimilarity:
    """The similarity of paired levels over a training; see `linear_cka`."""

    def __init__(self) -> None:
        self.first: dict[str, float] = {}

    def measure(
        self, step: int, names: Sequence[str], student: Sequence[Tensor], teacher: Sequence[Tensor]
    ) -> Mapping[str, float]:
        """Measure every 100 iterations, and warn once where the levels have not come nearer.

        Args:
            step: iteration of the training.
            names: names of the levels.
            student: the student's own levels, before any fusion, (N, C, H, W) each.
            teacher: the teacher's levels.

        Returns:
            The similarities by level; empty at other iterations.
        """
        if step % PERIOD:
            return {}
        values = [
            float(linear_cka(ours, theirs)) for ours, theirs in zip(student, teacher, strict=True)
        ]
        found = dict(zip(names, values, strict=True))
        self.first = self.first or found
        if step == JUDGED_AT and _mean(found) <= _mean(self.first):
            changes = [f"{name} {self.first[name]:.2f} to {found[name]:.2f}" for name in names]
            logger.warning(
                "After %d iterations the student's levels are no nearer to the teacher's: their "
                "similarity (linear CKA) went from %s; is the weight of the methods too small, or "
                "the student frozen?",
                step,
                ", ".join(changes),
            )
        return found


def _mean(values: Mapping[str, float]) -> float:
    finite = [x for x in values.values() if math.isfinite(x)]
    return sum(finite) / len(finite) if finite else math.nan
