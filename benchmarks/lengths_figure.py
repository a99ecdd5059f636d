"""Where rows of a table end at each length of their training, and what that took."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from reviewkd_det.report.figures import style

__all__ = ["draw_lengths", "seconds_per_iteration", "write_lengths"]

Record = Mapping[str, Any]
DPI = 110


def seconds_per_iteration(timed: Sequence[Record]) -> dict[str, float]:
    """The median over the seeds, by row.

    Args:
        timed: records of runs that nothing ran beside.
    """
    table = pd.DataFrame(
        {"row": x["row"], "seconds": x["train_seconds"] / x["iterations"]} for x in timed
    )
    return dict(table.groupby("row")["seconds"].median())


def draw_lengths(records: Sequence[Record], timed: Sequence[Record]) -> Figure:
    """Draw AP over the iterations and over the seconds of trainings of several lengths.

    A row is named "NAME, ITERATIONS". What has one length alone is a level line where it is the
    teacher, and left out otherwise.

    Args:
        records: records of the rows.
        timed: records of runs that nothing ran beside, whose rows are the names alone.

    Returns:
        Two panels with a line for each name: mean and standard deviation over the seeds.

    Raises:
        ValueError: a name with several lengths has no timed runs.
    """
    table = pd.DataFrame(
        {
            "name": x["row"].rsplit(", ", 1)[0],
            "iterations": x["iterations"],
            "AP": x["scores"]["AP"],
        }
        for x in records
    )
    teacher = table.loc[table["name"] == "teacher", "AP"].max()
    lengths = table.groupby("name")["iterations"].transform("nunique")
    lines = table[(lengths > 1) & (table["name"] != "teacher")].reset_index(drop=True)
    seconds = seconds_per_iteration(timed)
    if untimed := sorted(set(lines["name"]) - set(seconds)):
        raise ValueError(f"every line must have timed runs; got none of {', '.join(untimed)}")
    lines["minutes"] = lines["iterations"] * lines["name"].map(seconds) / 60
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axis, x in zip(figure.subplots(1, 2, sharey=True), ("iterations", "minutes"), strict=True):
        looks = {"hue": "name", "palette": "colorblind", "marker": "o", "ax": axis}
        sns.lineplot(lines, x=x, y="AP", errorbar="sd", err_style="bars", **looks)
        axis.axhline(teacher, color="grey", ls="--", lw=1)
        axis.annotate("teacher", (1, teacher), (-4, 3), ("axes fraction", "data"),
                      "offset points", ha="right", color="grey")  # fmt: skip
        axis.set(xscale="log", xlabel="minutes of training" if x == "minutes" else x)
        ticks = sorted(set(lines[x].round(0 if x == "iterations" else 1)))
        axis.set_xticks(ticks if x == "iterations" else [1, 2, 5, 10, 20])
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.xaxis.set_minor_locator(_none())
        sns.move_legend(axis, "lower right", title=None)
    return figure


def _none() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def write_lengths(path: Path, records: Sequence[Record], timed: Sequence[Record]) -> None:
    """Write the figure as a PNG file."""
    with style():
        draw_lengths(records, timed).savefig(path, dpi=DPI)
