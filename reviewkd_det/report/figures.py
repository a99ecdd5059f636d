"""The report's figures."""

from collections.abc import Iterable, Sequence
from statistics import mean, median, stdev
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from reviewkd_det.report.groups import Group
from reviewkd_det.report.tables import matching, score_keys

__all__ = ["LEVELS", "draw_levels", "draw_losses", "draw_scores", "draw_speed", "draw_summary"]

# Okabe and Ito's colours, which colour-blind readers can tell apart, the faint yellow left out.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#D55E00")
LINES = ("-", "--", ":", "-.")
LOSSES, LEVELS = r"total_loss|loss[^/]*", r"loss[^/]*/.+"
PANEL = (4.4, 3.1)  # inches
Style = dict[str, Any]


def draw_scores(groups: Sequence[Group]) -> Figure | None:
    """Each score of the runs, seed by seed, and over their steps; None without evaluations."""
    scores = _main_scores(groups)
    if not scores:
        return None
    height = max(PANEL[1], 1 + 0.42 * len(groups)) * len(scores)
    figure = _figure(2 * len(scores), 2, height=height, width=3 * PANEL[0])
    axes = figure.subplots(len(scores), 2, squeeze=False, width_ratios=[1, 1.4])
    for row, (key, name) in zip(axes, scores.items(), strict=True):
        _score_dots(row[0], groups, key, name)
        _score_curves(row[1], groups, key, name)
    return figure


def draw_losses(groups: Sequence[Group]) -> Figure | None:
    """A panel per loss, the total first; None where no run has one."""
    units = dict.fromkeys(group.first.kind.unit for group in groups)
    panels = [(key, _of_unit(groups, unit)) for unit in units
              for key in sorted(matching(_of_unit(groups, unit), LOSSES), key=_order)]  # fmt: skip
    if not panels:
        return None
    figure = _figure(len(panels), 3)
    for axis, (key, members) in zip(_axes(figure, len(panels), 3), panels, strict=True):
        _loss_panel(axis, members, groups, key)
    _legend(figure, groups, [group for group in groups if matching([group], LOSSES)])
    return figure


def draw_levels(groups: Sequence[Group]) -> Figure | None:
    """A panel per distilled group, a line per level; None where no run recorded its levels."""
    distilled = [group for group in groups if matching([group], LEVELS)]
    if not distilled:
        return None
    figure = _figure(len(distilled), 3)
    axes = _axes(figure, len(distilled), 3)
    keys = sorted(matching(distilled, LEVELS))
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(keys)))
    for axis, group in zip(axes, distilled, strict=True):
        for number, (key, shade) in enumerate(zip(keys, shades, strict=True)):
            style = {"color": matplotlib.colors.to_hex(shade), "linestyle": LINES[number % 4]}
            _curve(axis, group, key, style, key.partition("/")[2])
        axis.set_title(fill(group.name, 48))
        axis.set_xlabel(group.first.kind.unit)
    handles = [line for line in axes[0].lines if not str(line.get_label()).startswith("_")]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    limits = [limit for axis in axes for limit in axis.get_ylim()]
    for axis in axes:
        axis.set_ylim(min(limits), max(limits))
        _log_scale(axis)
    return figure


def draw_speed(groups: Sequence[Group]) -> Figure | None:
    """A bar per group: its step, and the waiting for data in it; None where no run timed them."""
    timed = [group for group in groups if group.first.series("time")]
    if not timed:
        return None
    figure = _figure(1, 1, height=1.1 + 0.4 * len(timed), width=9)
    axis = figure.subplots()
    step, data = ([1000 * mean(median(run.series(key).values()) for run in group.runs
                               if run.series(key)) for group in timed]
                  for key in ("time", "data_time"))  # fmt: skip
    names = [fill(group.name, 24) for group in timed]
    axis.barh(names, data, color="#E69F00", label="waiting for data")
    rest = [max(0.0, x - y) for x, y in zip(step, data, strict=True)]
    bars = axis.barh(names, rest, left=data, color="#56B4E9", label="the rest of the step")
    axis.bar_label(bars, [f"{x:.0f}" for x in step], padding=4)
    axis.invert_yaxis()
    axis.set_xlabel("ms per step, median")
    axis.margins(x=0.12)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_summary(groups: Sequence[Group]) -> Figure:
    """The first score, its course, and the total and the distillation loss in one picture."""
    scores = list(_main_scores(groups).items())[:1]
    unit = groups[0].first.kind.unit
    members = _of_unit(groups, unit)
    losses = [key for key in ("total_loss", "loss_reviewkd", "loss_ce") if matching(members, key)]
    figure = _figure(2 * len(scores) + len(losses), 2, height=3.6 * (len(scores) + 1), width=13)
    axes = _axes(figure, 2 * len(scores) + len(losses), 2)
    for key, name in scores:
        _score_dots(axes[0], groups, key, name)
        _score_curves(axes[1], groups, key, name)
    for axis, key in zip(axes[2 * len(scores) :], losses, strict=True):
        _loss_panel(axis, members, groups, key)
    return figure


def _main_scores(groups: Sequence[Group]) -> dict[str, str]:
    """Without the scores that are parts of others."""
    scores = score_keys(groups)
    return {key: scores[key] for key in scores if key.endswith(("/AP", "top1"))}


def _score_dots(axis: Axes, groups: Sequence[Group], key: str, name: str) -> None:
    members = [group for group in groups if group.values(lambda run: run.last.get(key))]
    for row, group in enumerate(members):
        values = group.values(lambda run: run.last.get(key))
        color = _style(group, groups)["color"]
        axis.barh(row, mean(values), color=color, alpha=0.35)
        axis.plot(values, [row] * len(values), "o", color=color)
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        text = f"{mean(values):.1f}{spread}"
        axis.annotate(text, (max(values), row), (7, 0), textcoords="offset points", va="center")
    axis.set_yticks(range(len(members)), [fill(group.name, 24) for group in members])
    axis.invert_yaxis()
    axis.margins(x=0.25)
    axis.set_xlim(left=0)
    axis.set_title(f"{name} at the end")


def _score_curves(axis: Axes, groups: Sequence[Group], key: str, name: str) -> None:
    unit = ""
    for group in groups:
        if not (series := group.series(key)):
            continue
        unit, style = group.first.kind.unit, _style(group, groups)
        centers = np.array([mean(values) for values in series.values()])
        size = 4 if len(series) < 30 else 0
        axis.plot(list(series), centers, marker="o", markersize=size, label=group.name, **style)
        if len(group.runs) > 1:
            spread = np.array([stdev(values) for values in series.values()])
            low, high = centers - spread, centers + spread
            axis.fill_between(list(series), low, high, color=style["color"], alpha=0.15, lw=0)
    axis.set_xlabel(unit)
    axis.set_ylim(bottom=0)
    axis.set_xlim(left=0)
    axis.set_title(f"{name} over {unit}s")
    axis.legend(frameon=False, fontsize="small")


def _loss_panel(axis: Axes, members: Sequence[Group], groups: Sequence[Group], key: str) -> None:
    for group in members:
        _curve(axis, group, key, _style(group, groups), group.name)
    axis.set_title(key)
    axis.set_xlabel(members[0].first.kind.unit)
    _log_scale(axis)


def _curve(axis: Axes, group: Group, key: str, style: Style, label: str) -> None:
    """The mean over the seeds, and lightly smoothed over the steps."""
    series = group.series(key)
    if not series:
        return
    steps, values = list(series), np.array([mean(x) for x in series.values()])
    axis.plot(steps, values, color=style["color"], alpha=0.25, lw=0.8)
    axis.plot(steps, _smoothed(values), label=label, **style)


def _log_scale(axis: Axes) -> None:
    """A logarithmic scale with plain numbers, also where it spans less than a decade."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    wide, narrow = LogLocator(subs=(1, 2, 5)), MaxNLocator(5, steps=[1, 2, 5, 10])
    axis.yaxis.set_major_locator(wide if high > 10 * low else narrow)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _smoothed(values: np.ndarray) -> np.ndarray:
    """The mean over about a fifteenth of the values around each; over fewer near the ends."""
    last = len(values) - 1
    halves = [min(i, last - i, len(values) // 30) for i in range(len(values))]
    return np.array([values[i - half : i + half + 1].mean() for i, half in enumerate(halves)])


def _figure(panels: int, columns: int, height: float = PANEL[1], width: float = 0) -> Figure:
    rows = -(-panels // columns)
    size = (width or PANEL[0] * min(panels, columns), height if width else height * rows)
    return Figure(figsize=size, layout="constrained")


def _axes(figure: Figure, panels: int, columns: int) -> list[Axes]:
    columns = min(panels, columns)
    axes = figure.subplots(-(-panels // columns), columns, squeeze=False).ravel()
    for unused in axes[panels:]:
        unused.remove()
    return list(axes[:panels])


def _legend(figure: Figure, groups: Sequence[Group], shown: Iterable[Group]) -> None:
    """One legend for all panels, below them."""
    styles = {group.name: _style(group, groups) for group in shown}
    handles = [matplotlib.lines.Line2D([], [], **style) for style in styles.values()]
    figure.legend(handles, list(styles), loc="outside lower center", ncols=3, frameon=False)


def _style(group: Group, groups: Sequence[Group]) -> Style:
    number = groups.index(group)
    line = LINES[number // len(COLORS) % len(LINES)]
    return {"color": COLORS[number % len(COLORS)], "linestyle": line}


def _of_unit(groups: Sequence[Group], unit: str) -> list[Group]:
    return [group for group in groups if group.first.kind.unit == unit]


def _order(key: str) -> tuple[bool, str]:
    return key != "total_loss", key
