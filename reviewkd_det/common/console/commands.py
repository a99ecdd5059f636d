"""Command lines that can be pasted."""

import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["ENTRY_POINTS", "program", "script_command", "shown_path"]

ROOT = Path(__file__).resolve().parents[3]
# What a script of a checkout is called where the project is installed from a wheel.
ENTRY_POINTS = {
    "tools/train_net.py": "reviewkd-train",
    "tools/lazyconfig_train_net.py": "reviewkd-train-python",
    "tools/export_student.py": "reviewkd-export",
    "tools/report.py": "reviewkd-report",
    "tools/visualize.py": "reviewkd-visualize",
    "tools/label_images.py": "reviewkd-label",
    "tools/predict.py": "reviewkd-predict",
    "tools/distill.py": "reviewkd-distill",
    "tools/evaluate_export.py": "reviewkd-evaluate-export",
    "tools/demo.py": "reviewkd-demo",
    "tools/setup_detectron2.py": "reviewkd-setup-detectron2",
    "classification/train.py": "reviewkd-classify-train",
    "classification/evaluate.py": "reviewkd-classify-evaluate",
    "classification/born_again.py": "reviewkd-classify-generations",
}


def shown_path(path: str | Path) -> str:
    """A path as short as it can be pasted: relative to the working directory if it is inside."""
    absolute = Path.cwd() / path
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path)


def script_command(script: str, *arguments: str | Path) -> str:
    """The command line that calls a script of this project from the working directory.

    Args:
        script: path of the script inside the project.
        arguments: arguments of the script.
    """
    return shlex.join([*program(script), *map(str, arguments)])


def program(script: str) -> list[str]:
    """The words that start a script: Python and its path in a checkout, else its entry point."""
    if (ROOT / "setup.py").is_file():
        return [_found(Path(sys.executable), "python"), shown_path(ROOT / script)]
    name = ENTRY_POINTS[script]
    return [_found(Path(sys.executable).with_name(name), name)]


def _found(own: Path, name: str) -> str:
    """The short name of a program, where that finds the one beside this interpreter."""
    found = shutil.which(name)
    return name if found and Path(found).parent == own.parent else str(own)
