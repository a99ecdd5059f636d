"""What a run says at its end: its result, and command lines that can be pasted."""

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "ENTRY_POINTS",
    "comparison_command",
    "program",
    "result_block",
    "run_folder_of",
    "script_command",
    "shown_path",
]

ROOT = Path(__file__).resolve().parents[3]
# What a script of a checkout is called where the project is installed from a wheel.
ENTRY_POINTS = {
    "tools/train_net.py": "reviewkd-train",
    "tools/lazyconfig_train_net.py": "reviewkd-train-python",
    "tools/export_student.py": "reviewkd-export",
    "tools/report.py": "reviewkd-report",
    "tools/visualize.py": "reviewkd-visualize",
    "tools/demo.py": "reviewkd-demo",
    "classification/train.py": "reviewkd-classify-train",
    "classification/evaluate.py": "reviewkd-classify-evaluate",
}
METRICS = ("metrics.json", "metrics.jsonl")  # of a detector's run, of a classifier's


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


def run_folder_of(file: str) -> Path | None:
    """The folder of the run that wrote a checkpoint or config; None where it lies in no run's."""
    folder = Path(file).parent
    has_run = any((folder / name).is_file() for name in METRICS)
    return folder if has_run and (folder / "config.yaml").is_file() else None


def comparison_command(folder: str | Path, teacher_file: str) -> str:
    """The command line of a report of a run; other folders can follow.

    Args:
        folder: output folder of the run.
        teacher_file: checkpoint or config of the run's teacher, whose own run joins where the
            file lies in its folder; empty for none.
    """
    page = ["--output", shown_path(Path(folder, "report.html"))]
    teacher = run_folder_of(teacher_file) if teacher_file else None
    runs = [shown_path(folder), *([f"teacher={shown_path(teacher)}"] if teacher else [])]
    return script_command("tools/report.py", *page, *runs)


def result_block(title: str, lines: Mapping[str, str]) -> str:
    """A title and below it, aligned, what belongs to it; lines without text are left out."""
    shown = {label: text for label, text in lines.items() if text}
    width = max(map(len, shown), default=0)
    return "\n".join([title, *(f"  {label:<{width}}  {text}" for label, text in shown.items())])


def _found(own: Path, name: str) -> str:
    """The short name of a program, where that finds the one beside this interpreter."""
    found = shutil.which(name)
    return name if found and Path(found).parent == own.parent else str(own)
