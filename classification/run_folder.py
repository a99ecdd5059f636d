"""The files of a run: its state, to go on with, and its metrics."""

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from classification.weights import replace_file

__all__ = ["RunFolder"]

PROGRESS = "progress.json"


class RunFolder:
    """Write a run's files from its main process; all processes read.

    `state/epoch_N` holds the full state after N epochs, `metrics.jsonl` a line per epoch,
    `summary.json` the result, `last.pth` and `best.pth` the student's plain weights.

    Args:
        path: the run's OUTPUT_DIR.
        accelerator: of this process.
    """

    def __init__(self, path: str, accelerator: Accelerator) -> None:
        self.path = Path(path)
        self.accelerator = accelerator

    def states(self) -> list[Path]:
        """Folders of complete states, the latest last."""
        return sorted(self.path.glob("state/epoch_[0-9]*[0-9]"))

    def refuse_another_run(self) -> None:
        """Raise FileExistsError where the folder holds another run's checkpoints."""
        found = [*self.states(), *self.path.glob("*.pth")]
        if found:
            raise FileExistsError(
                f"OUTPUT_DIR must not hold another run's checkpoints; got '{self.path}' with "
                f"{found[0].name}; add --resume to go on with it or --overwrite to replace it"
            )

    def remove_run(self) -> None:
        """Delete the files of an earlier run."""
        if self.accelerator.is_main_process:
            shutil.rmtree(self.path / "state", ignore_errors=True)
            for name in ("last.pth", "best.pth", "metrics.jsonl", "summary.json"):
                (self.path / name).unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()

    def save_state(self, progress: dict[str, Any]) -> None:
        """Save everything a run needs to go on; earlier states are deleted afterwards.

        Args:
            progress: plain data; its `epoch` counts the epochs done.
        """
        earlier = self.states()
        folder = self.path / "state" / f"epoch_{progress['epoch']:05d}"
        part = folder.with_name(f"{folder.name}.part")
        if self.accelerator.is_main_process:
            shutil.rmtree(part, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(part))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (part / PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
            part.rename(folder)
            for old in earlier:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def load_state(self) -> dict[str, Any] | None:
        """Load the latest state into what the accelerator has prepared.

        Returns:
            Its progress; None where there is no state.
        """
        states = self.states()
        if not states:
            return None
        self.accelerator.load_state(str(states[-1]))
        progress = json.loads((states[-1] / PROGRESS).read_text(encoding="utf-8"))
        if self.accelerator.is_main_process:
            self._forget_metrics_after(progress["epoch"])
        return progress

    def add_metrics(self, metrics: dict[str, Any]) -> None:
        """Append a line to `metrics.jsonl`."""
        if self.accelerator.is_main_process:
            with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write `summary.json`."""
        if self.accelerator.is_main_process:
            text = json.dumps(summary, indent=2) + "\n"
            replace_file(self.path / "summary.json", lambda part: part.write_text(text))

    def _forget_metrics_after(self, epoch: int) -> None:
        """A run that died after its last state repeats the epochs from there."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n")]
            kept = [line for line in kept if json.loads(line)["epoch"] <= epoch]
            replace_file(path, lambda part: part.write_text("".join(kept), encoding="utf-8"))
