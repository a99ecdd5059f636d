"""Trainings of several lengths: what they reached, in which time."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from tabulate import tabulate

__all__ = ["TEACHER", "Record", "read_lengths", "time_table"]

TEACHER = "teacher"
SEEDS = 3  # that a mean is of
Record = Mapping[str, Any]


def read_lengths(records: Sequence[Record], timed: Sequence[Record]) -> pd.DataFrame:
    """The runs of several lengths, with the minutes that they take.

    Args:
        records: records of rows named "NAME, ITERATIONS"; a name with one length is left out.
        timed: records of runs beside which nothing else ran, whose rows are the names alone; the
            median of their seconds per iteration makes minutes of iterations.

    Returns:
        Columns name, iterations, AP and minutes, a row for each run.

    Raises:
        ValueError: a name has no timed run.
    """
    rows = [(x["row"].rsplit(", ", 1)[0], x["iterations"], x["scores"]["AP"]) for x in records]
    points = pd.DataFrame(rows, columns=["name", "iterations", "AP"])
    points = points[points.groupby("name")["iterations"].transform("nunique") > 1]
    costs = [(x["row"], x["train_seconds"] / x["iterations"]) for x in timed]
    seconds = pd.DataFrame(costs, columns=["name", "cost"]).groupby("name")["cost"].median()
    if lacking := sorted(set(points["name"]) - set(seconds.index)):
        raise ValueError(f"each line must have a timed run; got none of {', '.join(lacking)}")
    return points.assign(minutes=points["iterations"] * points["name"].map(seconds) / 60)


def time_table(
    records: Sequence[Record],
    timed: Sequence[Record],
    reference: str = "teacher_labels",
    lack: float = 0.5,
) -> str:
    """The shortest schedule of each name that reaches the best of a reference, in Markdown.

    Args:
        records: see `read_lengths`.
        timed: see `read_lengths`.
        reference: name whose best mean AP is to be reached.
        lack: AP by which a mean may stay below it.
    """
    points = read_lengths(records, timed)
    lengths = points.groupby(["name", "iterations"], sort=False)
    means = lengths.agg(AP=("AP", "mean"), minutes=("minutes", "first"), seeds=("AP", "size"))
    means = means[means["seeds"] >= SEEDS].reset_index()
    goal = means.loc[means["name"] == reference, "AP"].max() - lack
    rows = []
    for name, of_name in means.groupby("name", sort=False):
        reached = of_name[of_name["AP"] >= goal].sort_values("iterations").head(1)
        rows += [
            [name, f"{x.iterations:,}", f"{x.AP:.1f}", f"{x.minutes:.1f}"]
            for x in reached.itertuples()
        ] or [[name, "none", "", ""]]
    headers = ["run", f"shortest schedule of at least {goal:.1f} AP", "AP", "minutes"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)
