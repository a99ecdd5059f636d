"""What started a run, kept in its folder: the command, the processes, the versions, the time."""

import json
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path

from reviewkd_det.common.runs.files import replace_file
from reviewkd_det.common.runs.run_command import run_command

__all__ = ["RECORD", "installed_versions", "write_run_record"]

RECORD = "run.json"
# Whose versions are kept, where they are installed.
PACKAGES = ("reviewkd_det", "torch", "torchvision", "numpy", "accelerate", "timm")


def write_run_record(
    folder: str | Path, argv: Sequence[str], processes: int, *, resume: bool = False
) -> None:
    """Write `run.json`; a resumed run keeps that of its first start.

    Args:
        folder: folder of the run.
        argv: `sys.argv` of the process that starts it.
        processes: number of processes that train it.
        resume: whether the run goes on with what the folder holds.
    """
    path = Path(folder, RECORD)
    if resume and path.is_file():
        return
    record = {
        "command": run_command(argv, processes),
        "processes": processes,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": installed_versions(),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    replace_file(path, lambda part: part.write_text(text, encoding="utf-8"))


def installed_versions() -> dict[str, str]:
    """The versions of the packages that a run depends on, where they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
