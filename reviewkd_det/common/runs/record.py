"""What started a run, kept in its folder: the command, the processes, the versions, the time."""

import json
import os
import shlex
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path

from reviewkd_det.common.runs.files import replace_file

__all__ = ["RECORD", "start_command", "write_run_record"]

RECORD = "run.json"
PACKAGES = (
    "reviewkd_det",
    "torch",
    "torchvision",
    "numpy",
    "accelerate",
    "timm",
)  # where installed
FLAGS = ("--resume", "--overwrite")  # of one start, not of the run


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
        "command": start_command(argv, processes),
        "processes": processes,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": _versions(),
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    replace_file(path, lambda part: part.write_text(text, encoding="utf-8"))


def start_command(argv: Sequence[str], processes: int) -> str:
    """The command line that starts a run, without --resume and --overwrite.

    Args:
        argv: `sys.argv` of the process that starts it.
        processes: number of processes that train it.
    """
    script, *rest = argv
    # As argparse reads them: any beginning of a name is that name.
    kept = [arg for arg in rest if len(arg) < 3 or not any(x.startswith(arg) for x in FLAGS)]
    if Path(script).suffix != ".py":  # an installed command
        return shlex.join([Path(script).name, *kept])
    return shlex.join([*_launcher(processes), script, *kept])


def _launcher(processes: int) -> list[str]:
    """Detection starts its processes itself; torchrun and accelerate say how many they started."""
    here = os.environ.get("LOCAL_WORLD_SIZE")
    if here is None or processes == 1:
        return ["python"]
    machines = processes // int(here)
    nodes = ["--nnodes", str(machines)] if machines > 1 else []
    return ["torchrun", *nodes, "--nproc_per_node", here]


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
