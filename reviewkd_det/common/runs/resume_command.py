"""The command line that goes on with a run."""

import os
import shlex
from collections.abc import Sequence

__all__ = ["resume_command"]

REPLACED = ("--resume", "--overwrite")


def resume_command(arguments: Sequence[str], processes: int = 1) -> str:
    """The command line of a run with --resume, and without --overwrite.

    Args:
        arguments: `sys.argv` of the run.
        processes: number of processes that a launcher started for the run; 1 where the script
            starts its own.
    """
    script, *rest = arguments
    command = shlex.join([script, "--resume", *(arg for arg in rest if not _is_replaced(arg))])
    if processes == 1:
        return f"python {command}"
    if os.environ.get("LOCAL_WORLD_SIZE") == str(processes):
        return f"torchrun --nproc_per_node {processes} {command}"
    return f"(the launcher of its {processes} processes) {command}"


def _is_replaced(argument: str) -> bool:
    """As argparse reads it, the beginning of a name is that name."""
    return len(argument) > 2 and any(name.startswith(argument) for name in REPLACED)
