"""The detection demo: a teacher and students with less and more of it, on scenes of digits."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from tqdm import tqdm

from reviewkd_det.common import find_config
from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.data import check_evaluable
from reviewkd_det.d2.runs.device import usable_device
from reviewkd_det.d2.teacher.precision import computes_in_bfloat16
from reviewkd_det.demo import digit_scenes  # noqa: F401, registers their names
from reviewkd_det.demo.trainings import Trainings, comparison_table, write_summary

__all__ = ["FULL", "RUNS", "compare_detectors"]

METRICS = ("AP", "AP50", "AP75")
METHODS, LABELS = "MODEL.DISTILL.METHODS", "MODEL.DISTILL.TEACHER_LABELS.ENABLED"


class Row(NamedTuple):
    """A training of the table: its title, its recipe and KEY VALUE pairs of its own."""

    title: str
    recipe: str
    opts: Sequence[str] = ()


# In the order of the table.
RUNS = {
    "teacher": Row("teacher", "teacher"),
    "plain": Row("student, plain", "student", (METHODS, "()", LABELS, "False")),
    "teacher_labels": Row("student, teacher's labels", "student", (METHODS, "()")),
    "all": Row("student, teacher's labels, ReviewKD and DKD", "student"),
}
HEADERS = [
    "run", *METRICS, "parameters", "labelled scenes", "unlabelled", "iterations", "train seconds",
]  # fmt: skip
# Lengths at which teacher and students are near their plateau, where a weight that is held was
# ahead of one that falls (docs/weight.md).
FULL = (
    "SOLVER.MAX_ITER", "6000", "TEST.EVAL_PERIOD", "1000",
    "MODEL.DISTILL.REVIEWKD.GRADIENT_SHARE", "1.0", "MODEL.DISTILL.REVIEWKD.DECAY_SHARE", "0.0",
)  # fmt: skip


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
        The table that compares the trainings, and a sentence on what the methods gave.
    """
    check_evaluable("digit_scenes_val")  # which makes the scenes
    teacher, student = (_iterations(name, opts) for name in ("teacher", "student"))
    # How long the teacher's labels are trained on is known only after all of it.
    progress = Progress(teacher + 4 * student)
    opts = [*_precision(opts), *opts]
    trainings = Trainings(
        "tools/train_net.py", "configs/demo", output, opts, progress.follow, progress.bar.write
    )
    taught = ["MODEL.DISTILL.TEACHER.WEIGHTS", str(output / "teacher" / "model_final.pth")]
    runs: dict[str, dict[str, Any]] = {}

    def train(name: str, *more: str) -> None:
        row = RUNS[name]
        own = [] if row.recipe == "teacher" else [*taught, *row.opts]
        runs[name] = trainings.train(name, row.recipe, *own, *more)

    for name in ("teacher", "plain", "all"):
        train(name)
    # A step on labels is as long as a plain one.
    longer = round(student * runs["all"]["train_seconds"] / runs["plain"]["train_seconds"])
    progress.bar.total = progress.bar.n + longer
    train("teacher_labels", "SOLVER.MAX_ITER", str(longer))
    progress.bar.close()
    summary = {name: _numbers(runs[name]) for name in RUNS}
    write_summary(output, summary)
    return f"{_table(summary, opts)}\n\n{_remark(summary)}"


def _precision(opts: Sequence[str]) -> tuple[str, ...]:
    """Mixed precision on a processor that is faster in it; what is given stands after it."""
    device = usable_device(_read("student", opts).MODEL.DEVICE, "MODEL.DEVICE")
    fast = device == "cpu" and computes_in_bfloat16(device)
    return ("SOLVER.AMP.ENABLED", "True") if fast else ()


def _remark(summary: dict[str, dict[str, Any]]) -> str:
    labels, everything = summary["teacher_labels"], summary["all"]
    lead = everything["AP"] - labels["AP"]
    times = labels["iterations"] / everything["iterations"]
    if lead > 0:
        return (
            f"ReviewKD and DKD on top of the teacher's labels: {lead:+.1f} AP over those labels "
            f"alone, which were given the same time, {times:.1f} times the iterations."
        )
    return (
        "At this length ReviewKD and DKD are not ahead of the teacher's labels alone, which were "
        f"given the same time, {times:.1f} times the iterations: {lead:+.1f} AP. --full trains "
        "both near their plateau."
    )


def _read(recipe: str, opts: Sequence[str]) -> CfgNode:
    return load_config(find_config(f"demo/{recipe}.yaml"), opts, import_code=True)


def _iterations(recipe: str, opts: Sequence[str]) -> int:
    return _read(recipe, opts).SOLVER.MAX_ITER


def _numbers(run: dict[str, Any]) -> dict[str, Any]:
    """What a run came to; Detectron2 gives no number where a model detects nothing."""
    scores = {name: run["results"]["bbox"][name] or 0.0 for name in METRICS}
    return scores | {name: run[name] for name in ("parameters", "iterations", "train_seconds")}


def _table(summary: dict[str, dict[str, Any]], opts: Sequence[str]) -> str:
    rows = []
    for name, numbers in summary.items():
        row = RUNS[name]
        cfg = _read(row.recipe, [*opts, *row.opts])
        uses_more = cfg.MODEL.DISTILL.TEACHER_LABELS.ENABLED
        sets = cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELED if uses_more else ()
        counts = [sum(len(DatasetCatalog.get(x)) for x in names) for names in sets]
        scores = [f"{numbers[metric]:.1f}" for metric in METRICS]
        others = [numbers["parameters"], *counts, numbers["iterations"]]
        seconds = f"{numbers['train_seconds']:.0f}"
        rows.append([row.title, *scores, *(f"{number:,}" for number in others), seconds])
    return comparison_table(HEADERS, rows)
