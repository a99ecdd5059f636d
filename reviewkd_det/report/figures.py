"""The report's figures, made of the table of all values; None where nothing is to be drawn."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from reviewkd_det.report.groups import Groups
from reviewkd_det.report.tables import name_scores

__all__ = [
    "draw_effects", "draw_levels", "draw_losses", "draw_scores", "draw_speed", "draw_summary",
    "style",
]  # fmt: skip

LOSSES, LEVELS = r"total_loss|loss[^/]*", r"loss[^/]*/.+"
EFFECTS = {
    "gradient_share/": "gradient of {} in the student's own",
    "similarity/": "similarity, {}",
}  # titles
MAIN_SCORES = ("/AP", "/PQ", "/mIoU", "/IoU", "top1")  # the ends of their keys
PANEL = (4.4, 3.1)  # inches
POINTS = 200  # of a smoothed curve; more would be neither seen nor quickly drawn
DASHES = ("", (4, 1.5), (1, 1), (3, 1.25, 1.5, 1.25))  # a group past the tenth colour has the next
# Other figures share the process: what is set for the report stays in it.
STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.h_pad": 0.1,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.hashsalt": "reviewkd_det",  # the same runs give the same figures
}


def style() -> AbstractContextManager[Any]:
    """The looks of all figures, while the context lasts."""
    return matplotlib.rc_context(STYLE)


def draw_scores(groups: Groups, values: pd.DataFrame) -> Figure | None:
    """Draw each score of the runs, seed by seed, and over their steps."""
    scores = _main_scores(values)
    if not scores:
        return None
    height = max(PANEL[1], 1 + 0.42 * len(groups)) * len(scores)
    figure = Figure(figsize=(3 * PANEL[0], height), layout="constrained")
    axes = figure.subplots(len(scores), 2, squeeze=False, width_ratios=[1, 1.4])
    for row, (key, name) in zip(axes, scores.items(), strict=True):
        _draw_score(row, groups, values[values["key"] == key], name)
    return figure


def draw_losses(groups: Groups, values: pd.DataFrame) -> Figure | None:
    """Draw a panel per loss, the total first."""
    losses = values[values["key"].str.fullmatch(LOSSES)]
    if losses.empty:
        return None
    panels = losses[["unit", "key"]].drop_duplicates()
    is_part = panels["key"] != "total_loss"
    panels = panels.assign(is_part=is_part).sort_values(["unit", "is_part", "key"])
    figure, axes = _panels(len(panels))
    lines: dict[str, Any] = {}
    for axis, (unit, key, _) in zip(axes, panels.itertuples(index=False), strict=True):
        shown = losses[(losses["unit"] == unit) & (losses["key"] == key)]
        lines |= _draw_loss(axis, groups, shown, key)
    names = [name for name in groups if name in lines]
    handles = [lines[name] for name in names]
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure


def draw_levels(groups: Groups, values: pd.DataFrame) -> Figure | None:
    """Draw a panel per distilled group, with a line for each level."""
    shown = values[values["key"].str.fullmatch(LEVELS)]
    if shown.empty:
        return None
    parts = shown["key"].str.split("/", n=1, expand=True)
    # Several methods may share the levels.
    named = parts[1] if parts[0].nunique() == 1 else parts[0] + " " + parts[1]
    shown = shown.assign(level=named)
    order = sorted(named.unique())
    names = [name for name in groups if name in set(shown["group"])]
    figure, axes = _panels(len(names), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        own = shown[shown["group"] == name]
        looks = {"hue": "level", "hue_order": order, "palette": "viridis"}
        lines = _draw_curves(axis, own, {**looks, "style": "level", "style_order": order})
        axis.set(title=fill(name, 48), ylabel="")
        _set_log_scale(axis)
    handles, ncols = list(lines.values()), min(8, len(lines))
    figure.legend(handles, list(lines), loc="outside lower center", ncols=ncols)
    return figure


def draw_effects(groups: Groups, values: pd.DataFrame) -> Figure | None:
    """Draw a panel per method, with its share of the gradient, and per level, with its likeness."""
    shown = values[values["key"].str.startswith(tuple(EFFECTS))]
    if shown.empty:
        return None
    figure, axes = _panels(shown["key"].nunique())
    keys = sorted(shown["key"].unique())  # "gradient_share" comes before "similarity"
    for axis, key in zip(axes, keys, strict=True):
        kind, name = key.split("/", 1)
        own = shown[shown["key"] == key]
        lines = _draw_curves(axis, own, _looks(groups, own))
        axis.set(title=EFFECTS[f"{kind}/"].format(name), ylabel="")
        if kind == "similarity":
            axis.set_ylim(0, 1)
        else:
            _set_log_scale(axis)
    figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=3)
    return figure


def draw_speed(groups: Groups, values: pd.DataFrame) -> Figure | None:
    """Draw a bar per group: its step, and the waiting for data in it."""
    shown = values[values["key"].isin(["time", "data_time"])]
    if "time" not in set(shown["key"]):
        return None
    medians = 1000 * shown.groupby(["group", "run", "key"])["value"].median()
    bars = medians.groupby(["group", "key"]).mean().unstack()
    bars = bars.reindex(columns=["data_time", "time"]).fillna({"data_time": 0})
    bars = bars.loc[[name for name in groups if name in bars.index]]
    bars["rest"] = (bars["time"] - bars["data_time"]).clip(lower=0)
    figure = Figure(figsize=(9, 1.1 + 0.4 * len(bars)), layout="constrained")
    axis = figure.subplots()
    names = [fill(name, 24) for name in bars.index]
    axis.barh(names, bars["data_time"], color="#E69F00", label="waiting for data")
    rest = {"left": bars["data_time"], "color": "#56B4E9", "label": "the rest of the step"}
    drawn = axis.barh(names, bars["rest"], **rest)
    axis.bar_label(drawn, [f"{x:.0f}" for x in bars["time"]], padding=4)
    axis.invert_yaxis()
    axis.set_xlabel("ms per step, median")
    axis.margins(x=0.12)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_summary(groups: Groups, values: pd.DataFrame) -> Figure:
    """Draw the first score, its course, and the main losses of the first kind of run."""
    unit = next(iter(groups.values()))[0].kind.unit
    values = values[values["unit"] == unit]
    keys = set(values["key"])
    scores = list(_main_scores(values).items())[:1]
    methods = [f"loss_{x.lower()}" for runs in groups.values() for x in runs[0].methods]
    losses = [x for x in dict.fromkeys(["total_loss", *methods, "loss_ce"]) if x in keys]
    panels = 2 * len(scores) + len(losses)
    rows = max(1, -(-panels // 2))
    figure = Figure(figsize=(13, 3.6 * rows), layout="constrained")
    axes = list(figure.subplots(rows, 2, squeeze=False).ravel())
    for key, name in scores:
        _draw_score(axes, groups, values[values["key"] == key], name)
    for axis, key in zip(axes[2 * len(scores) :], losses, strict=False):
        _draw_loss(axis, groups, values[values["key"] == key], key)
    for unused in axes[panels:]:
        unused.remove()
    return figure


def _main_scores(values: pd.DataFrame) -> dict[str, str]:
    """The scores that are no part of another."""
    return {x: name for x, name in name_scores(values).items() if x.endswith(MAIN_SCORES)}


def _draw_score(axes: Sequence[Axes], groups: Groups, scores: pd.DataFrame, name: str) -> None:
    """A bar and dots for the last values, left; curves of all values, right."""
    looks = _looks(groups, scores)
    last = scores.groupby("run", sort=False).last()
    order = looks.pop("hue_order")
    bars = {"data": last, "x": "value", "y": "group", "order": order, "ax": axes[0]}
    bars |= {"hue": "group", "palette": looks["palette"], "legend": False}
    sns.barplot(**bars, errorbar=None, alpha=0.35, saturation=1)
    sns.stripplot(**bars, jitter=False, size=6)
    for row, group in enumerate(order):
        own = last.loc[last["group"] == group, "value"]
        text = f"{own.mean():.1f}" + (f" ± {own.std():.1f}" if len(own) > 1 else "")
        end = (own.max(), row)
        axes[0].annotate(text, end, (7, 0), textcoords="offset points", va="center")
    axes[0].set_yticks(range(len(order)), [fill(group, 24) for group in order])
    axes[0].margins(x=0.25)
    axes[0].set_xlim(left=0)
    axes[0].set(title=f"{name} at the end", xlabel="", ylabel="")
    marker = "o" if scores.groupby("run")["step"].size().max() < 30 else None
    curves = {"x": "step", "y": "value", "ax": axes[1], "errorbar": "sd", "err_kws": {"lw": 0}}
    shown = _common_steps(scores)
    sns.lineplot(shown, **curves, **looks, hue_order=order, marker=marker, markersize=4, mew=0)
    unit = scores["unit"].iloc[0]
    axes[1].set(title=f"{name} over {unit}s", xlabel=unit, ylabel="")
    axes[1].set_xlim(left=0)
    axes[1].set_ylim(bottom=0)
    sns.move_legend(axes[1], "best", title=None, fontsize="small")


def _draw_loss(axis: Axes, groups: Groups, losses: pd.DataFrame, key: str) -> dict[str, Any]:
    lines = _draw_curves(axis, losses, _looks(groups, losses))
    axis.set(title=key, ylabel="")
    _set_log_scale(axis)
    return lines


def _draw_curves(axis: Axes, values: pd.DataFrame, looks: dict[str, Any]) -> dict[str, Any]:
    """The mean over the seeds: as recorded, pale; and lightly smoothed, with their spread.

    Returns:
        What a legend shows of each curve, by its name; the panel has no legend of its own.
    """
    values = _common_steps(values)
    curves = {"x": "step", "y": "value", "ax": axis, **looks}
    means = values.groupby([looks["hue"], "step"], as_index=False)["value"].mean()
    pale = {"estimator": None, "alpha": 0.25, "lw": 0.8, "legend": False}
    sns.lineplot(means, **curves, **pale)
    by_curve = values.groupby(["run", "key"])["value"]
    smoothed = values.assign(value=by_curve.transform(_smooth))
    every = -(-by_curve.transform("size") // POINTS)
    shown = smoothed[by_curve.cumcount(ascending=False) % every == 0]  # the last one is among them
    sns.lineplot(shown, errorbar="sd", err_kws={"lw": 0}, **curves)
    axis.set_xlabel(values["unit"].iloc[0])
    handles, names = axis.get_legend_handles_labels()
    if legend := axis.get_legend():
        legend.remove()
    return dict(zip(names, handles, strict=True))


def _common_steps(values: pd.DataFrame) -> pd.DataFrame:
    """The steps that all runs of a group have: a mean over others would jump where one ends."""
    known = values.groupby(["group", "key", "step"])["run"].transform("size")
    return values[known == values.groupby(["group", "key"])["run"].transform("nunique")]


def _smooth(values: pd.Series) -> pd.Series:
    """The mean over about a fifteenth of the values around each; over fewer near the ends."""
    place = np.arange(len(values))
    half = np.minimum(np.minimum(place, place[::-1]), len(values) // 30)
    total = np.concatenate([[0.0], np.cumsum(values)])
    means = (total[place + half + 1] - total[place - half]) / (2 * half + 1)
    return pd.Series(means, index=values.index)


def _looks(groups: Groups, values: pd.DataFrame) -> dict[str, Any]:
    """Colours that colour-blind readers can tell apart, the same for a group in all figures."""
    colors = sns.color_palette("colorblind", 10)
    dashes = {name: DASHES[i // 10 % len(DASHES)] for i, name in enumerate(groups)}
    order = [name for name in groups if name in set(values["group"])]
    palette = dict(zip(groups, cycle(colors), strict=False))
    looks = {"hue": "group", "hue_order": order, "palette": {x: palette[x] for x in order}}
    return {**looks, "style": "group", "dashes": dashes}


def _panels(count: int, **shared: Any) -> tuple[Figure, list[Axes]]:
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for unused in axes[count:]:
        unused.remove()
    return figure, list(axes[:count])


def _set_log_scale(axis: Axes) -> None:
    """A logarithmic scale with plain numbers, also where it spans less than a decade."""
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    wide, narrow = LogLocator(subs=(1, 2, 5)), MaxNLocator(5, steps=[1, 2, 5, 10])
    axis.yaxis.set_major_locator(wide if high > 10 * low else narrow)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
