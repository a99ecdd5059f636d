"""What a run keeps of its start: the command, the processes, the versions, the classes."""

import json
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path

from reviewkd_det.common.runs.files import read_json_object, replace_file
from reviewkd_det.common.runs.run_command import run_command

__all__ = ["GAINS", "RECORD", "installed_versions", "saved_classes", "write_run_record"]

RECORD = "run.json"
GAINS = "gains.json"  # what an export gained, in its folder
# Whose versions are kept, where they are installed.
PACKAGES = ("reviewkd_det", "torch", "torchvision", "numpy", "accelerate", "timm")


def write_run_record(
    folder: str | Path,
    argv: Sequence[str],
    processes: int,
    *,
    resume: bool = False,
    classes: Sequence[str] | None = None,
) -> None:
    """Write `run.json`; a resumed run keeps that of its first start, where it names the classes.

    Args:
        folder: folder of the run.
        argv: `sys.argv` of the process that starts it.
        processes: number of processes that train it.
        resume: whether the run goes on with what the folder holds.
        classes: names of the model's classes, in the order of their numbers; None for unknown.
    """
    path = Path(folder, RECORD)
    before = read_json_object(path) if resume else {}
    if before and (classes is None or "classes" in before):
        return
    record = before or {
        "command": run_command(argv, processes),
        "processes": processes,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": installed_versions(),
    }
    if classes is not None:
        record["classes"] = list(classes)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    replace_file(path, lambda part: part.write_text(text, encoding="utf-8"))


def saved_classes(folder: str | Path) -> list[str] | None:
    """The class names that a run has kept, in the order of their numbers; None where it has none.

    Args:
        folder: folder of the run.
    """
    classes = read_json_object(Path(folder, RECORD)).get("classes")
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        return classes
    return None


def installed_versions() -> dict[str, str]:
    """The versions of the packages that a run depends on, where they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
