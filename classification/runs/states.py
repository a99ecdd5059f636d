"""The states that a run goes on from."""

import json
import logging
import textwrap
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from classification.runs.folder_states import PROGRESS, find_folder_flaw, load_folder
from reviewkd_det.common.runs.average import MovingAverage
from reviewkd_det.common.runs.checkpoints import Checkpoints, find_flaw, read_run_checkpoint
from reviewkd_det.common.runs.random_state import random_state, restore_random_state
from reviewkd_det.common.weights.plain_pickle import refusal_reason

__all__ = ["States", "files_of"]

logger = logging.getLogger(__name__)
ENTRIES = frozenset({"model", "optimizer", "scaler", "random_states", "progress"})


class States:
    """Save full states from all processes of a run, and load the last whole one.

    `epoch_N.pth` is the state after N epochs, `epoch_N_step_S.pth` the one after S optimiser steps
    of the epoch that follows. Folders of these names, which older versions wrote, are states too.

    Args:
        files: files of the states, as `files_of` finds them.
        accelerator: accelerator of this process.
        model: network that is trained, as the accelerator has prepared it.
        optimizer: optimiser of the model, as the accelerator has prepared it.
        keep: number of states, the last ones, that are kept.
        average: average of the student's weights; None where there is none.
    """

    def __init__(
        self,
        files: Checkpoints,
        accelerator: Accelerator,
        model: Any,
        optimizer: Any,
        keep: int,
        average: MovingAverage | None = None,
    ) -> None:
        self.files = files
        self.accelerator = accelerator
        self.model, self.optimizer, self.average = model, optimizer, average
        self.keep = keep

    def save(self, progress: dict[str, Any]) -> None:
        """Save everything a run needs to go on, then delete states that are too many.

        Args:
            progress: plain data; `epoch` counts the epochs done, `step` the steps of the next one.

        Raises:
            OSError: it cannot be written; the earlier states are as they were.
        """
        step = f"_step_{progress['step']:07d}" if progress["step"] else ""
        states = gather_object([random_state()])
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            content = {
                "model": self.accelerator.unwrap_model(self.model).state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler else {},
                "random_states": states,
                "progress": {**progress, "processes": len(states)},
            }
            if self.average is not None:
                content["average"] = self.average.state_dict()
            self.files.remove_parts()
            self.files.save(f"epoch_{progress['epoch']:05d}{step}.pth", content)
            self.files.prune(self.keep)
        self.accelerator.wait_for_everyone()

    def load(self) -> dict[str, Any] | None:
        """Load the last whole state; one that is not whole is passed over with a warning.

        Returns:
            Its progress; None where there is no state.

        Raises:
            ValueError: no state is whole, or the last whole one is of another number of processes
                or does not fit what is configured.
        """
        if self.accelerator.is_main_process:
            self.files.remove_parts()
        path = self.files.last_whole()
        if path is None:
            return None
        content = _read(path)
        progress: dict[str, Any] = content["progress"]
        processes = self.accelerator.num_processes
        if progress["processes"] != processes:
            raise ValueError(
                f"run must go on in as many processes as saved '{path}', {progress['processes']}; "
                f"got {processes}"
            )
        try:
            self._load(path, content)
        except Exception as error:  # whatever the readers of several formats raise
            refused = isinstance(error, UnpicklingError)
            reason = refusal_reason(error) if refused else str(error) or type(error).__name__
            raise ValueError(
                f"state must be of the configured networks and precision; got '{path}': "
                + textwrap.shorten(reason, 300, placeholder=" ...")
            ) from error
        return progress

    def _load(self, path: Path, content: dict[str, Any]) -> None:
        if path.is_dir():
            load_folder(path, self.accelerator)
            return self._load_average(path, None)
        self.accelerator.unwrap_model(self.model).load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self._load_average(path, content.get("average"))
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(content["scaler"])
        restore_random_state(content["random_states"], self.accelerator.process_index)

    def _load_average(self, path: Path, saved: dict[str, Any] | None) -> None:
        if (saved is None) == (self.average is None):
            if self.average is not None:
                self.average.load_state_dict(saved or {})
        elif self.average is None:
            raise ValueError("SOLVER.EMA_DECAY is 0, and the state has an average of the weights")
        else:
            self.average.restart(self.accelerator.unwrap_model(self.model).student)
            logger.warning("The average of the weights starts anew: '%s' has none", path)


def files_of(folder: Path) -> Checkpoints:
    """The states in a folder."""
    whole = partial(find_flaw, entries=ENTRIES)
    return Checkpoints(
        folder,
        r"epoch_(\d+)(?:_step_(\d+))?(?:\.pth)?",
        lambda path: find_folder_flaw(path) if path.is_dir() else whole(path),
    )


def _read(path: Path) -> dict[str, Any]:
    """What a state holds; of an older version's folder, its progress alone."""
    if path.is_dir():
        return {"progress": json.loads((path / PROGRESS).read_text(encoding="utf-8"))}
    return read_run_checkpoint(path)
