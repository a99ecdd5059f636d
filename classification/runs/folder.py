"""The files of a run beside its weights: where its states are, its metrics and its result."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from classification.runs.states import files_of
from reviewkd_det.common import replace_file
from reviewkd_det.common.runs.files import read_json_object
from reviewkd_det.common.runs.trackers import IDS

__all__ = ["RunFolder"]


class RunFolder:
    """Write a run's files from its main process; all processes read.

    `state/` holds what the run goes on from, `metrics.jsonl` a line per epoch, `summary.json` the
    result, `last.pth` and `best.pth` the student's plain weights.

    Args:
        path: OUTPUT_DIR of the run.
        accelerator: accelerator of this process.
    """

    def __init__(self, path: str, accelerator: Accelerator) -> None:
        self.path = Path(path)
        self.accelerator = accelerator
        self.state_files = files_of(self.path / "state")

    def refuse_another_run(self) -> None:
        """Raise FileExistsError where the folder holds another run's checkpoints."""
        found = [*self.path.glob("*.pth"), *self.state_files.all()]
        if found:
            raise FileExistsError(
                f"OUTPUT_DIR must not hold another run's checkpoints; got '{self.path}' with "
                f"{found[-1].name}; add --resume to go on with it or --overwrite to replace it"
            )

    def refuse_lost_states(self) -> None:
        """Raise FileNotFoundError where a run is there and no state to go on from."""
        metrics = self.path / "metrics.jsonl"
        found = [*self.path.glob("*.pth"), *([metrics] if metrics.is_file() else [])]
        if found:
            raise FileNotFoundError(
                f"--resume must find a state to go on from; got none in "
                f"'{self.state_files.folder}', beside {found[0].name}; start anew with --overwrite"
            )

    def remove_run(self) -> None:
        """Delete the files of an earlier run."""
        if self.accelerator.is_main_process:
            shutil.rmtree(self.path / "state", ignore_errors=True)
            for name in ("last.pth", "best.pth", "metrics.jsonl", "summary.json", IDS):
                (self.path / name).unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()

    def add_metrics(self, metrics: dict[str, Any]) -> None:
        """Append a line to `metrics.jsonl`.

        Before the state is saved: a run that dies between the two repeats the epoch and the line.
        """
        if self.accelerator.is_main_process:
            path = self.path / "metrics.jsonl"
            with self.state_files.writing(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write `summary.json`."""
        if self.accelerator.is_main_process:
            text = json.dumps(summary, indent=2) + "\n"
            replace_file(self.path / "summary.json", lambda part: part.write_text(text))

    def read_summary(self) -> dict[str, Any]:
        """The content of `summary.json`; empty where there is none that can be read."""
        return read_json_object(self.path / "summary.json")

    def forget_metrics_after(self, epoch: int) -> None:
        """Delete the lines of later epochs: a run that died after its last state repeats those."""
        path = self.path / "metrics.jsonl"
        if self.accelerator.is_main_process and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n")]
            kept = [line for line in kept if json.loads(line)["epoch"] <= epoch]
            replace_file(path, lambda part: part.write_text("".join(kept), encoding="utf-8"))
