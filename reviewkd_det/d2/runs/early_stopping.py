"""The end of a training whose results grow no better."""

import logging
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from reviewkd_det.d2.compat import metric_of

__all__ = ["EarlyStopping", "EndOfTraining"]

logger = logging.getLogger(__name__)


class EndOfTraining(BaseException):
    """Leaves Detectron2's loop, which logs every `Exception` as a failure."""


class EarlyStopping(HookBase):
    """Make an iteration the last one when the best result is so many evaluations old.

    It belongs after the hook that keeps the best checkpoint and before those that write and save,
    in every process; the main process decides.

    Args:
        period: iterations between two evaluations.
        patience: evaluations without a better result after which training ends.
        best: hook that knows the best result; None in other processes than the main one.
    """

    def __init__(self, period: int, patience: int, best: Any) -> None:
        self.period, self.patience = period, patience
        self.best: hooks.BestCheckpointer | None = best
        self.waited = 0

    @property
    def is_over(self) -> bool:
        """Whether the best result is that old."""
        return self.waited >= self.patience

    def after_step(self) -> None:
        """Count where there was an evaluation."""
        done = self.trainer.iter + 1
        if done % self.period or done >= self.trainer.max_iter:
            return
        better = self.best is not None and self.best.best_iter == self.trainer.iter
        self.waited = comm.all_gather(0 if better else self.waited + 1)[0]
        if self.is_over:
            self.trainer.max_iter = done
            if self.best is not None:
                logger.info("Training ends after iteration %d: %s", done, self._describe())

    def take_last(self, iteration: int) -> None:
        """Count the evaluation at the end of a run that is now made longer.

        Args:
            iteration: iterations of that run, after which `best` has its result.
        """
        better = self.best is not None and self.best.best_iter == iteration
        self.waited = comm.all_gather(0 if better else self.waited + 1)[0]

    def _describe(self) -> str:
        assert self.best is not None
        metric, value = metric_of(self.best), self.best.best_metric
        seen = "no value of it was seen" if value is None else f"the best one is {value:.2f}"
        return f"{self.patience} evaluations in a row gave no better {metric}; {seen}"

    def state_dict(self) -> dict[str, int]:
        """How many evaluations there were since the best one."""
        return {"waited": self.waited}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restore what `state_dict` returned."""
        self.waited = state["waited"]
