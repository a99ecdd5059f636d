"""The average of a student's weights in a run: evaluated, saved as the student, gone on from."""

import logging
from typing import Any

from torch import nn

from reviewkd_det.common.runs.average import MovingAverage

__all__ = ["TRAINED", "TrainedWeights", "average_of"]

TRAINED = "trained"  # entry of a checkpoint whose `model` is an average
logger = logging.getLogger(__name__)


def average_of(model: nn.Module, decay: float) -> MovingAverage | None:
    """The average of a detector's weights, of the student's where it is distilled.

    Args:
        model: detector on its device.
        decay: see `MovingAverage`; 0 for none.
    """
    return MovingAverage(getattr(model, "student", model), decay) if decay else None


class TrainedWeights:
    """The entry of a checkpoint that a run with an average goes on from.

    Such a checkpoint has the average as its `model`, which is what is used of it, and the weights
    that are trained in here.

    Args:
        student: network that is trained.
        average: average of its weights.
    """

    def __init__(self, student: nn.Module, average: MovingAverage) -> None:
        self.student, self.average = student, average
        self._restored = False

    def state_dict(self) -> dict[str, Any]:
        """The trained weights, and how many updates the average has seen."""
        return {"model": self.student.state_dict(), "updates": self.average.updates}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore both, after the checkpoint's `model` was loaded into the student."""
        self.average.restart(self.student, saved["updates"])
        self.student.load_state_dict(saved["model"])
        self._restored = True

    def begin(self, resumed: str) -> None:
        """Take over the student's weights where there is no average to go on with.

        Args:
            resumed: checkpoint that the run goes on from; "" for a new run.
        """
        if self._restored:
            return
        self.average.restart(self.student)
        if resumed:
            logger.warning("The average of the weights starts anew: '%s' has none", resumed)
