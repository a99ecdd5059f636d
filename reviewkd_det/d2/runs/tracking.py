"""The numbers of a run for Weights & Biases and MLflow, beside its `metrics.json`."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage

from reviewkd_det.common.runs.trackers import (
    Tracker,
    numbers_of,
    project_for,
    read_ids,
    reason_of,
    start_tracker,
    write_ids,
)

__all__ = ["TrackedRun", "TrackerWriter"]

WINDOW = 20  # values that a noisy number is the median of, as in metrics.json
logger = logging.getLogger(__name__)


class TrackedRun:
    """The entries of a run in its trackers, open inside the block, in the main process.

    A tracker that fails inside the block is warned of once and left alone from then on.

    Args:
        settings: settings of the run, a `RunSettings`.
    """

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.goes_on = False  # with the entries of the run's folder
        self.result: Mapping[str, Any] = {}
        self._trackers: dict[str, Tracker] = {}

    def __enter__(self) -> "TrackedRun":
        """Open an entry in each tracker, or go on with that of the run's folder."""
        names = self.settings.trackers if comm.is_main_process() else ()
        folder = Path(self.settings.output_dir)
        ids = read_ids(folder) if self.goes_on else {}
        for name in names:
            project = project_for(name, self.settings.project, "reviewkd_det")
            tracker = start_tracker(name, project, folder, self.settings.config, ids.get(name, ""))
            self._trackers[name], ids[name] = tracker, tracker.id
            write_ids(folder, ids)
            logger.info("%s: run %s of %s", name, tracker.id, project)
        return self

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Give numbers of a step to all trackers."""
        for name in list(self._trackers):
            self._try(name, "log", numbers_of(values), step)

    def __exit__(self, kind: Any, *_: Any) -> None:
        """End the entries, with the numbers of the result."""
        result = numbers_of(self.result, "final")
        for name in list(self._trackers):
            self._try(name, "finish", result, failed=kind is not None)
            self._trackers.pop(name, None)

    def _try(self, name: str, method: str, *arguments: Any, **named: Any) -> None:
        try:
            getattr(self._trackers[name], method)(*arguments, **named)
        except Exception as error:  # of many kinds of their own
            del self._trackers[name]
            place, reason = Path(self.settings.output_dir, "metrics.json"), reason_of(error)
            logger.warning("%s takes no more of this run: %s; '%s' has it", name, reason, place)


class TrackerWriter(EventWriter):
    """Give the trackers what `metrics.json` gets.

    Args:
        run: entries of the run.
    """

    def __init__(self, run: TrackedRun) -> None:
        self.run = run
        self._last_step = -1

    def write(self) -> None:
        """Give what was logged since the last call."""
        steps: dict[int, dict[str, float]] = defaultdict(dict)
        for name, (value, step) in get_event_storage().latest_with_smoothing_hint(WINDOW).items():
            if step > self._last_step:
                steps[step][name] = value
        for step in sorted(steps):
            self.run.log(steps[step], step)
        self._last_step = max([self._last_step, *steps])
