"""The demos' trainings, one command after the other, and the table that compares them."""

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from reviewkd_det.common import replace_file
from reviewkd_det.common.console.commands import script_command

__all__ = ["Trainings", "comparison_table", "write_summary"]

# Without these, runs of two threads are now and then many times slower. They are for the runs
# alone: a process that is bound to a core hands that on to its children.
ENVIRONMENT = {"OMP_NUM_THREADS": "2", "OMP_PROC_BIND": "true"}


class Trainings(NamedTuple):
    """Trainings of one script, each as a command that is printed.

    Args:
        script: path of the script inside the project.
        recipes: folder of the recipes, as `--config-file` names it.
        output: folder that holds one folder per training.
        opts: KEY VALUE pairs of every training.
        follow: function that is called with each line of a training's output; None leaves the
            output to the terminal.
        write: function that prints a command.
    """

    script: str
    recipes: str
    output: Path
    opts: Sequence[str]
    follow: Callable[[str], None] | None = None
    write: Callable[[str], None] = print

    def train(self, name: str, recipe: str, *opts: str) -> dict[str, Any]:
        """Run one training and return its `summary.json`.

        Raises:
            RuntimeError: the training failed.
        """
        folder = self.output / name
        config = ["--config-file", f"{self.recipes}/{recipe}.yaml", "--overwrite"]
        line = script_command(
            self.script, *config, "OUTPUT_DIR", folder.resolve(), *self.opts, *opts
        )
        self.write(f"\n{name}: {line}")
        self._run(name, shlex.split(line))
        return json.loads((folder / "summary.json").read_text(encoding="utf-8"))

    def _run(self, name: str, command: Sequence[str]) -> None:
        last_line = ""
        with subprocess.Popen(
            command,
            env={**ENVIRONMENT, **os.environ},
            stdout=subprocess.PIPE if self.follow else None,
            stderr=subprocess.STDOUT if self.follow else None,
            text=True,
        ) as process:
            for line in process.stdout or ():
                assert self.follow is not None
                self.follow(line)
                last_line = line.strip() or last_line
        if process.returncode:
            got = f"exit code {process.returncode}{last_line and ': '}{last_line}"
            raise RuntimeError(f"training '{name}' must succeed; got {got}")


def write_summary(output: Path, runs: Mapping[str, Any]) -> None:
    """Write what all trainings came to into `summary.json`."""
    text = json.dumps(runs, indent=2) + "\n"
    replace_file(output / "summary.json", lambda part: part.write_text(text, encoding="utf-8"))


def comparison_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of one row per training, whose name is the first column."""
    columns = ("left", *["right"] * (len(headers) - 1))
    return tabulate(rows, headers, tablefmt="github", colalign=columns, disable_numparse=True)
