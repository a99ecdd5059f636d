"""Where trainings of several lengths end, over their iterations and over their minutes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

__all__ = ["draw_lengths"]

TEACHER = "teacher"
MINUTES = (1, 2, 3, 5, 7, 10, 15, 20, 30)  # that an axis names
Record = Mapping[str, Any]


def draw_lengths(records: Sequence[Record], timed: Sequence[Record]) -> Figure:
    """Draw AP over the iterations and over the minutes of training.

    Args:
        records: records of rows named "NAME, ITERATIONS". A name with several lengths is a line,
            the best of the teacher a level one; other names are left out.
        timed: records of runs beside which nothing else ran, whose rows are the names alone; the
            median of their seconds per iteration makes minutes of iterations.

    Returns:
        Two panels of lines: mean and standard deviation over the seeds.

    Raises:
        ValueError: a line has no timed run.
    """
    rows = [(x["row"].rsplit(", ", 1)[0], x["iterations"], x["scores"]["AP"]) for x in records]
    points = pd.DataFrame(rows, columns=["name", "iterations", "AP"])
    teacher = points.loc[points["name"] == TEACHER, "AP"].max()
    several = points.groupby("name")["iterations"].transform("nunique") > 1
    points = points[several & (points["name"] != TEACHER)]
    costs = [(x["row"], x["train_seconds"] / x["iterations"]) for x in timed]
    seconds = pd.DataFrame(costs, columns=["name", "cost"]).groupby("name")["cost"].median()
    if lacking := sorted(set(points["name"]) - set(seconds.index)):
        raise ValueError(f"each line must have a timed run; got none of {', '.join(lacking)}")
    points = points.assign(minutes=points["iterations"] * points["name"].map(seconds) / 60)
    figure = Figure(figsize=(11, 4), layout="constrained")
    over_iterations, over_minutes = figure.subplots(1, 2, sharey=True)
    _draw(over_iterations, points, "iterations", teacher, sorted(set(points["iterations"])))
    _draw(over_minutes, points, "minutes", teacher, MINUTES)
    over_minutes.set_xlabel("minutes of training on 2 CPU cores")
    return figure


def _draw(axis: Axes, points: pd.DataFrame, x: str, teacher: float, ticks: Sequence[float]) -> None:
    looks: dict[str, Any] = {"hue": "name", "style": "name", "palette": "colorblind"}
    looks |= {"markers": True, "errorbar": "sd", "err_style": "bars"}
    sns.lineplot(points, x=x, y="AP", ax=axis, **looks)
    axis.axhline(teacher, color="grey", lw=1, ls=":", label=TEACHER)
    axis.set(xscale="log")
    axis.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.legend(loc="lower right")
