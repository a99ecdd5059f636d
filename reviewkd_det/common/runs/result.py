"""The end of a run: its result, and the command that compares it with other runs."""

from collections.abc import Mapping
from pathlib import Path

from reviewkd_det.common.console.commands import script_command, shown_path

__all__ = ["comparison_command", "result_block", "run_folder_of"]

METRICS = ("metrics.json", "metrics.jsonl")  # of a detector's run, of a classifier's


def run_folder_of(file: str) -> Path | None:
    """The folder of the run that wrote a checkpoint or config; None where it lies in no run's."""
    folder = Path(file).parent
    has_run = any((folder / name).is_file() for name in METRICS)
    return folder if has_run and (folder / "config.yaml").is_file() else None


def comparison_command(folder: str | Path, teacher_file: str) -> str:
    """The command line of a report of a run; other folders can follow.

    Args:
        folder: folder of the run.
        teacher_file: checkpoint or config of the teacher, whose run joins where the file lies in
            the folder of one; empty for none.
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
