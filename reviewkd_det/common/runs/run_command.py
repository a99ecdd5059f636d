"""The command line of a run, to start it again or to go on with it."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

__all__ = ["run_command"]

FLAGS = ("--resume", "--overwrite")  # of one start, not of the run


def run_command(arguments: Sequence[str], processes: int = 1, *, resume: bool = False) -> str:
    """The command line of a run, without what it did to an earlier one.

    Args:
        arguments: `sys.argv` of the run.
        processes: number of processes that train it; what a launcher did not start the script does.
        resume: whether the command goes on with the run.
    """
    script, *rest = arguments
    kept = ["--resume"] * resume + [argument for argument in rest if not _is_flag(argument)]
    if Path(script).suffix != ".py":  # an installed command
        return " ".join([*_launcher(processes, ""), shlex.join([Path(script).name, *kept])])
    return " ".join([*_launcher(processes, "python"), shlex.join([script, *kept])])


def _launcher(processes: int, alone: str) -> list[str]:
    """What starts the processes: torchrun and accelerate say how many they started here."""
    here = os.environ.get("LOCAL_WORLD_SIZE")
    if here is None or processes == 1:
        return [alone] if alone else []
    if here == str(processes):
        return ["torchrun", *(["--no-python"] if not alone else []), "--nproc_per_node", here]
    return [f"(the launcher of its {processes} processes)"]


def _is_flag(argument: str) -> bool:
    """As argparse reads it, the beginning of a name is that name."""
    return len(argument) > 2 and any(flag.startswith(argument) for flag in FLAGS)
