"""Where trainings of several lengths end, over their iterations and over their minutes."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks.lengths import TEACHER, Record, read_lengths

__all__ = ["draw_lengths"]

MINUTES = (1, 2, 3, 5, 7, 10, 15, 20, 30)  # that an axis names


def draw_lengths(records: Sequence[Record], timed: Sequence[Record]) -> Figure:
    """Draw AP over the iterations and over the minutes of training.

    Args:
        records: records of rows named "NAME, ITERATIONS". A name with several lengths is a line,
            the best of the teacher a level one.
        timed: records that minutes are found by; see `read_lengths`.

    Returns:
        Two panels of lines: mean and standard deviation over the seeds.

    Raises:
        ValueError: a line has no timed run.
    """
    teachers = [x for x in records if x["row"].startswith(f"{TEACHER}, ")]
    teacher = max(x["scores"]["AP"] for x in teachers)
    points = read_lengths([x for x in records if x not in teachers], timed)
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
