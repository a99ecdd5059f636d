"""The classification demo: a teacher, students without it and with it, on scikit-learn's digits."""

from collections.abc import Sequence
from pathlib import Path

from classification.config import load_config
from reviewkd_det.common import CLASSIFIERS, find_config
from reviewkd_det.demo.trainings import Trainings, comparison_table, write_summary

__all__ = ["RUNS", "compare_classifiers"]

# What each training is called, in the order of the table.
RUNS = {
    "teacher": "teacher",
    "baseline": "student, baseline",
    "baseline_equal_time": "student, baseline at equal time",
    "distilled": "student, distilled",
}
HEADERS = ["run", "top-1", "top-5", "parameters", "labelled images", "epochs", "train seconds"]


def compare_classifiers(output: Path, opts: Sequence[str]) -> str:
    """Train what `RUNS` lists, and write `summary.json`.

    Args:
        output: folder that holds one folder per training.
        opts: KEY VALUE pairs of every training.

    Returns:
        The table that compares the trainings.
    """
    trainings = Trainings("classification/train.py", f"{CLASSIFIERS}/digits", output, opts)
    plain = ["DISTILL.METHODS", "()"]
    runs = {"teacher": trainings.train("teacher", "teacher")}
    runs["baseline"] = trainings.train("baseline", "student", *plain)
    taught = ["TEACHER.WEIGHTS", str(output / "teacher" / "last.pth")]
    runs["distilled"] = trainings.train("distilled", "student", *taught)
    ratio = runs["distilled"]["train_seconds"] / runs["baseline"]["train_seconds"]
    config = find_config("digits/student.yaml", CLASSIFIERS)
    epochs = round(load_config(config, opts).SOLVER.EPOCHS * ratio)
    runs["baseline_equal_time"] = trainings.train(
        "baseline_equal_time", "student", *plain, "SOLVER.EPOCHS", str(epochs)
    )
    write_summary(output, runs)
    rows = []
    for name, title in RUNS.items():
        run = runs[name]
        scores = [f"{run[metric]:.1f}" for metric in ("top1", "top5")]
        counts = [f"{run[count]:,}" for count in ("parameters", "train_images", "epochs")]
        rows.append([title, *scores, *counts, f"{run['train_seconds']:.0f}"])
    return comparison_table(HEADERS, rows)
