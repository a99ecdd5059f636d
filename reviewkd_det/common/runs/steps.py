"""Commands one after the other, in a given time."""

import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

from reviewkd_det.common import replace_file
from reviewkd_det.common.console.commands import script_command
from reviewkd_det.common.runs.files import read_json_object

__all__ = ["Steps"]


class Steps:
    """Steps of which each is a command: what each took is kept, so that a stopped one goes on.

    Args:
        path: file of what is kept.
        hours: hours for all of them.

    Attributes:
        state: what is kept: `seconds` of each step, the names of those that are `done`, and what
            the caller adds.
    """

    def __init__(self, path: Path, hours: float) -> None:
        self.path, self.hours = path, hours
        self.state: dict[str, Any] = {"seconds": {}, "done": [], **read_json_object(path)}

    @property
    def seconds_left(self) -> float:
        """Seconds that are left."""
        return 3600 * self.hours - sum(self.state["seconds"].values())

    def run(self, name: str, script: str, *arguments: object) -> None:
        """Run a step, unless it is done.

        Args:
            name: name of the step.
            script: script of the repository.
            arguments: its arguments.

        Raises:
            RuntimeError: it failed.
        """
        if name in self.state["done"]:
            return
        line = script_command(script, *map(str, arguments))
        print(f"\n{name} ({self.seconds_left / 3600:.2f} h left): {line}", flush=True)
        start = time.monotonic()
        try:
            code = subprocess.call(shlex.split(line))
        finally:
            spent = self.state["seconds"].get(name, 0.0) + time.monotonic() - start
            self.state["seconds"][name] = spent
            self.save()
        if code:
            raise RuntimeError(
                f"the step '{name}' must succeed; got exit code {code}; the same command goes on"
            )
        self.state["done"].append(name)
        self.save()

    def save(self) -> None:
        """Write what is known of the steps."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.state, indent=2) + "\n"
        replace_file(self.path, lambda part: part.write_text(text, encoding="utf-8"))
