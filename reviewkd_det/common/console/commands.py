"""Command lines that can be pasted."""

import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["script_command", "shown_path"]

ROOT = Path(__file__).resolve().parents[3]


def shown_path(path: str | Path) -> str:
    """A path as short as it can be pasted: relative to the working directory if it is inside."""
    absolute = Path.cwd() / path
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path)


def script_command(script: str, *arguments: str | Path) -> str:
    """The command line that calls a script of this project from the working directory.

    Args:
        script: its path inside the project.
        arguments: of it.
    """
    return shlex.join([_python(), shown_path(ROOT / script), *map(str, arguments)])


def _python() -> str:
    """What starts this interpreter: its short name, where that is the one which is found."""
    found, own = shutil.which("python"), Path(sys.executable)
    return "python" if found and Path(found).parent == own.parent else str(own)
