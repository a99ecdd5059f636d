"""The detection demo: a teacher, students without it and with it, on scenes of digits."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from tqdm import tqdm

from reviewkd_det.common import find_config
from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.data import check_evaluable
from reviewkd_det.demo import digit_scenes  # noqa: F401, registers their names
from reviewkd_det.demo.trainings import Trainings, comparison_table, write_summary

__all__ = ["RUNS", "compare_detectors"]

METRICS = ("AP", "AP50", "AP75")
# What each training is called, and its recipe, in the order of the table.
RUNS = {
    "teacher": ("teacher", "teacher"),
    "baseline": ("student, baseline", "student"),
    "baseline_equal_time": ("student, baseline at equal time", "student"),
    "distilled": ("student, distilled", "student"),
    "distilled_unlabeled": ("student, distilled, also on unlabelled", "student_unlabeled"),
}
HEADERS = [
    "run", *METRICS, "parameters", "labelled scenes", "unlabelled", "iterations", "train seconds",
]  # fmt: skip


class Progress:
    """One bar over the iterations of all trainings, moved by the lines that they log."""

    def __init__(self, iterations: int) -> None:
        interval = 0.5 if sys.stderr.isatty() else 10
        self.bar = tqdm(total=iterations, unit="it", mininterval=interval)
        self.done = 0

    def follow(self, line: str) -> None:
        """Move the bar where a line tells the iteration; each training begins with a low one."""
        if match := re.search(r"iter: (\d+) .*total_loss: (\S+)", line):
            iteration = int(match[1]) + 1
            self.bar.update(iteration - (self.done if iteration > self.done else 0))
            self.bar.set_postfix_str(f"loss {match[2]}")
            self.done = iteration


def compare_detectors(output: Path, opts: Sequence[str]) -> str:
    """Train what `RUNS` lists, and write `summary.json`.

    Args:
        output: folder that holds one folder per training.
        opts: KEY VALUE pairs of every training.

    Returns:
        The table that compares the trainings.
    """
    check_evaluable("digit_scenes_val")  # which makes the scenes
    teacher, student = (_iterations(name, opts) for name in ("teacher", "student"))
    # How long the run at equal time will be is known only after the other two.
    progress = Progress(teacher + 5 * student)
    trainings = Trainings(
        "tools/train_net.py", "configs/demo", output, opts, progress.follow, progress.bar.write
    )
    plain = ["MODEL.DISTILL.METHODS", "()"]
    runs = {"teacher": trainings.train("teacher", "teacher")}
    runs["baseline"] = trainings.train("baseline", "student", *plain)
    taught = ["MODEL.DISTILL.TEACHER.WEIGHTS", str(output / "teacher" / "model_final.pth")]
    runs["distilled"] = trainings.train("distilled", "student", *taught)
    runs["distilled_unlabeled"] = trainings.train(
        "distilled_unlabeled", "student_unlabeled", *taught
    )
    longer = round(student * runs["distilled"]["train_seconds"] / runs["baseline"]["train_seconds"])
    progress.bar.total = progress.bar.n + longer
    runs["baseline_equal_time"] = trainings.train(
        "baseline_equal_time", "student", *plain, "SOLVER.MAX_ITER", str(longer)
    )
    progress.bar.close()
    summary = {name: _numbers(runs[name]) for name in RUNS}
    write_summary(output, summary)
    return _table(summary, opts)


def _read(recipe: str, opts: Sequence[str]) -> CfgNode:
    return load_config(find_config(f"demo/{recipe}.yaml"), opts, import_code=True)


def _iterations(recipe: str, opts: Sequence[str]) -> int:
    return _read(recipe, opts).SOLVER.MAX_ITER


def _numbers(run: dict[str, Any]) -> dict[str, Any]:
    """What a run came to; Detectron2 gives no number where a model detects nothing."""
    scores = {name: round(run["results"]["bbox"][name] or 0.0, 2) for name in METRICS}
    return scores | {name: run[name] for name in ("parameters", "iterations", "train_seconds")}


def _table(summary: dict[str, dict[str, Any]], opts: Sequence[str]) -> str:
    rows = []
    for name, numbers in summary.items():
        title, recipe = RUNS[name]
        data = _read(recipe, opts).DATASETS
        counts = [sum(len(DatasetCatalog.get(x)) for x in y) for y in (data.TRAIN, data.UNLABELED)]
        scores = [f"{numbers[metric]:.1f}" for metric in METRICS]
        others = [numbers["parameters"], *counts, numbers["iterations"]]
        seconds = f"{numbers['train_seconds']:.0f}"
        rows.append([title, *scores, *(f"{number:,}" for number in others), seconds])
    return comparison_table(HEADERS, rows)
