"""When a run is saved, and how it stops when it is asked to."""

import logging
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from reviewkd_det.common import catch_interruption
from reviewkd_det.common.runs.random_state import random_state
from reviewkd_det.common.runs.run_command import run_command
from reviewkd_det.common.runs.stopping import StopRequest
from reviewkd_det.d2.compat import metric_of
from reviewkd_det.d2.runs.checkpointer import BEST, FINAL, StudentCheckpointer

__all__ = ["BestCheckpoint", "LRScheduler", "SaveState"]

logger = logging.getLogger(__name__)


class BestCheckpoint(hooks.BestCheckpointer):
    """Detectron2's hook that keeps `model_best.pth`; a resumed run knows the best so far."""

    def __init__(self, period: int, checkpointer: StudentCheckpointer, metric: str) -> None:
        super().__init__(period, checkpointer, metric, file_prefix=BEST)

    def state_dict(self) -> dict[str, float | int | None]:
        """The best value and its iteration."""
        return {"best_metric": self.best_metric, "best_iter": self.best_iter}

    def load_state_dict(self, state: dict[str, float | int | None]) -> None:
        """Restore what `state_dict` returned."""
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]

    def take_last(self, results: Mapping[str, Any], iteration: int) -> None:
        """Compare with the results at the end of a run that is now made longer.

        Its last checkpoint was saved before they were known.

        Args:
            results: results of the evaluation.
            iteration: iterations of that run.
        """
        value = flatten_results_dict(results).get(metric_of(self))
        if value is not None and (self.best_metric is None or value > self.best_metric):
            self.best_metric, self.best_iter = value, iteration


class LRScheduler(hooks.LRScheduler):
    """Detectron2's hook, which after the last step asks for a rate that nothing uses.

    A schedule that is not defined at its end, 1.0, raises there; that would lose the training. The
    name is Detectron2's, since checkpoints hold the state of a hook by the name of its class.
    """

    def after_step(self) -> None:
        """Log the rate of the step and set that of the next one."""
        try:
            super().after_step()
        except Exception:
            if self.trainer.iter + 1 < self.trainer.max_iter:
                raise


class SaveState(HookBase):
    """Save everything a run needs to go on: periodically, at its end, and when it must stop.

    SIGTERM and Ctrl-C let the iteration end; the run is saved and exits with 128 + the signal's
    number after a line that says how to go on. It belongs after all other hooks, in every process.

    Args:
        checkpointer: checkpointer of the run.
        period: iterations between two checkpoints.
        keep: number of the newest checkpoints that stay; 0 keeps all.
    """

    def __init__(self, checkpointer: StudentCheckpointer, period: int, keep: int = 0) -> None:
        self.checkpointer, self.period, self.keep = checkpointer, period, keep
        self.last_line = ""
        self._caught = ExitStack()
        self._stop: StopRequest | None = None

    def before_train(self) -> None:
        """Begin to listen; what a killed process has left half-written is removed."""
        self._stop = StopRequest(self._caught.enter_context(catch_interruption()))
        if comm.is_main_process():
            self.checkpointer.files.remove_parts()

    def after_step(self) -> None:
        """Save where it is due."""
        iteration = self.trainer.iter
        is_last = iteration + 1 >= self.trainer.max_iter
        assert self._stop is not None, "before_train makes it"
        signal = self._stop.signal()
        must_stop = signal is not None and not is_last
        periodic = (iteration + 1) % self.period == 0
        if not (is_last or must_stop or periodic):
            return
        states = comm.gather(random_state())
        if comm.is_main_process():
            extra = {"iteration": iteration, "random_states": states}
            if periodic or must_stop:
                self.checkpointer.save(f"model_{iteration:07d}", **extra)
            if is_last:
                self.checkpointer.save(FINAL, **extra)
            self.checkpointer.files.prune(self.keep)
        if is_last:
            self._caught.close()  # nothing is lost any more: a signal amid the last evaluation acts
        if signal is not None and must_stop:
            comm.synchronize()  # the first process that exits makes the launcher end the others
            command = run_command(sys.argv, resume=True)
            self.last_line = (
                f"Stopped by {signal.name} after iteration {iteration}; go on with: {command}"
            )
            raise SystemExit(128 + signal)

    def after_train(self) -> None:
        """Stop listening."""
        self._caught.close()
        if self.last_line:
            logger.info("%s", self.last_line)
