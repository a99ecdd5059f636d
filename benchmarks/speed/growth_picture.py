"""A recipe's growth, measured and drawn."""

from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # a picture is written, no window opened

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from benchmarks.speed.growth import Growth, Point, growth, read_pyramid
from benchmarks.speed.settings import Settings, checked_config

__all__ = ["draw_growth", "measure_growth"]

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLORS = {"ours": "#009E73", "textbook": "#E69F00"}
# Textbook's larger and hollow, so that both are seen where they meet.
MARKERS: dict[str, dict[str, Any]] = {
    "ours": {"marker": "o", "markersize": 6},
    "textbook": {"marker": "s", "markersize": 10, "markerfacecolor": "none"},
}
LABELS = {
    "area": "image area, pixels",
    "levels": "levels, counted from the finest",
    "mid_channels": "mid channels",
    "batch": "images in a batch",
}


def measure_growth(settings: Settings, picture: str) -> dict[str, Any]:
    """Measure and draw how the cost of a recipe's fusions and loss grows.

    Args:
        settings: the recipe and what stays fixed; its size is the largest.
        picture: the file to write.

    Returns:
        What `growth` returns, and the point around which it varies as `base`.
    """
    cfg = checked_config(settings)
    pyramid = read_pyramid(cfg)
    mid_channels = cfg.MODEL.DISTILL.REVIEWKD.MID_CHANNELS
    base = Point(settings.size, len(pyramid.strides), mid_channels, settings.batch)
    device, precision = cfg.MODEL.DEVICE, settings.precision
    measured = growth(pyramid, base, settings.repeats, device=device, precision=precision)
    height, width = base.size
    fixed = f"{base.batch} x {height} x {width} pixels, {base.levels} levels, {mid_channels} mid"
    draw_growth(measured, picture, f"{fixed} channels where not varied")
    return {**measured, "base": base._asdict()}


def draw_growth(measured: Growth, path: str, subtitle: str = "") -> None:
    """Draw what `growth` returned: a panel for each thing that varies.

    Args:
        measured: what `growth` returned.
        path: the picture to write.
        subtitle: what stays fixed.
    """
    figure, panels = plt.subplots(1, 4, figsize=(15, 4.2), layout="constrained")
    for axis, (name, result) in zip(panels, measured.items(), strict=True):
        _draw_panel(axis, name, result)
    panels[0].set_ylabel("ms, forward and backward, median")
    figure.suptitle(f"What fusions and loss cost{subtitle and ': '}{subtitle}")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_panel(axis: Axes, name: str, result: dict[str, Any]) -> None:
    values = result["values"]
    for kind, color in COLORS.items():
        milliseconds = [1000 * x for x in result[kind]]
        slope = result.get(f"{kind}_slope")
        line = "-" if slope is None else ""
        label = kind if slope is None else f"{kind}: slope {slope:.2f}"
        axis.plot(values, milliseconds, linestyle=line, color=color, **MARKERS[kind], label=label)
        if slope is not None:
            offset = np.mean(np.log(milliseconds) - slope * np.log(values))
            axis.plot(values, np.exp(offset) * np.array(values) ** slope, color=color)
    axis.set_xlabel(LABELS[name])
    if name == "levels":
        axis.set_ylim(bottom=0)
        axis.set_xticks(values)
    else:
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(values, [f"{value:,}" for value in values])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
