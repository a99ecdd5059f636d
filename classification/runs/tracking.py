"""What a run tells accelerate's trackers, whose failures do not end it."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from fvcore.common.config import CfgNode

from reviewkd_det.common.runs.trackers import (
    allow_file_store,
    flat_config,
    numbers_of,
    project_for,
    read_ids,
    reason_of,
    start_error,
    write_ids,
)

__all__ = ["Tracking"]

logger = logging.getLogger(__name__)
# Where each tracker that has ids keeps that of its open run.
ID_OF: dict[str, Callable[[Any], str]] = {
    "wandb": lambda run: run.id,
    "mlflow": lambda run: run.info.run_id,
}


class Tracking:
    """The entries of a run in its trackers, in the main process.

    Args:
        accelerator: accelerator that was told the trackers.
        cfg: config of the run.
    """

    def __init__(self, accelerator: Accelerator, cfg: CfgNode) -> None:
        self.accelerator, self.cfg = accelerator, cfg
        self.folder = Path(cfg.OUTPUT_DIR)

    def start(self, *, resumed: bool) -> None:
        """Open an entry in each tracker, or go on with that of the run's folder.

        Args:
            resumed: whether the run goes on.

        Raises:
            ConnectionError: a tracker cannot be reached, or refuses.
        """
        ids = read_ids(self.folder) if resumed else {}
        options: dict[str, dict[str, Any]] = {
            "wandb": {"name": self.folder.name, "dir": str(self.folder), "resume": "allow"},
            "mlflow": {"run_name": self.folder.name},
        }
        for name, key in (("wandb", "id"), ("mlflow", "run_id")):
            options[name] |= {key: ids[name]} if name in ids else {}
        named = [name for name in self.cfg.TRACKERS if name in options]
        project = project_for(named[0] if named else "", self.cfg.TRACKER_PROJECT, "classification")
        allow_file_store()
        try:
            self.accelerator.init_trackers(project, init_kwargs=options)
            for tracker in self._trackers:
                if not (tracker.name == "mlflow" and "mlflow" in ids):  # whose values stay
                    tracker.store_init_configuration(flat_config(self.cfg))
        except Exception as error:  # of many kinds of their own
            raise start_error(self.cfg.TRACKERS, error) from error
        found = {x.name: ID_OF[x.name](x.tracker) for x in self._trackers if x.name in ID_OF}
        if found:
            write_ids(self.folder, {**ids, **found})

    @property
    def _trackers(self) -> list[GeneralTracker]:
        return list(self.accelerator.trackers) if self.accelerator.is_main_process else []

    def log(self, values: Mapping[str, float], epoch: int) -> None:
        """Give the numbers of an epoch to all trackers; one that fails is left alone from then on.

        Args:
            values: numbers by name.
            epoch: number of the epoch.
        """
        for tracker in self._trackers:
            self._try(tracker, lambda tracker=tracker: tracker.log(dict(values), step=epoch))  # type: ignore[misc]

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """End the entries.

        Args:
            summary: result of the run, for those that have entries; None where it was stopped.
        """
        for tracker in self._trackers:
            if summary is not None and tracker.name in ID_OF:
                result = numbers_of(summary, "final")
                self._try(tracker, lambda x=tracker, y=result: x.log(y, step=summary["epochs"]))  # type: ignore[misc]
        for tracker in self._trackers:
            self._try(tracker, tracker.finish)
        self.accelerator.trackers.clear()
        self.accelerator.end_training()

    def _try(self, tracker: GeneralTracker, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:  # of many kinds of their own
            self.accelerator.trackers.remove(tracker)
            place = self.folder / "metrics.jsonl"
            name, reason = tracker.name, reason_of(error)
            logger.warning("%s takes no more of this run: %s; '%s' has it", name, reason, place)
