"""A distilled student's levels beside its teacher's, on one image.

Every panel shows the same part of the image, so cells lie where they look. The maps of one level
share a scale; all gates share one.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from reviewkd_det.pictures.captured import Fusion, LevelMaps
from reviewkd_det.pictures.predictions import DPI, WIDTH
from reviewkd_det.pictures.runs import Findings

__all__ = ["draw_levels"]

# Colour-blind readers can follow both: one from dark to light, one from a neutral middle.
MAP_COLORS, GATE_COLORS = "viridis", "PuOr"
TITLES = (
    "image and\ncells",
    "teacher",
    "student,\nfused",
    "gate of\nthis level",
    "gate of the\ncoarser level",
    "difference\nthat remains",
)
WHOLE = "no gate:\ntaken\nwhole"
# What stands in the place of the two gates.
NO_GATES = {
    Fusion.SUM: (WHOLE, WHOLE),
    Fusion.COARSEST: (WHOLE, "no gate:\nnothing\ncoarser"),
    Fusion.NONE: (WHOLE, "no fusion:\ncompared\nby itself"),
}
NOTE = (
    "Maps: root mean square over channels, one scale for the three of a level. HCL: the level's "
    "loss on this image.\nGates: how much each cell takes of its own level and of the coarser one."
)
PANEL = 1.35  # width in inches
REST = 1.7  # height in inches of what is not panels
LINES: dict[str, Any] = {"colors": "white", "linewidth": 0.4, "alpha": 0.7}
MOST_LINES = 32  # more cells than that in a row would hide the image


def draw_levels(view: Findings, title: str, path: Path) -> None:
    """Draw one row per level: the image, both sides' maps, the gates and the difference.

    Args:
        view: what a run with fused levels sees.
        title: title of the picture.
        path: PNG file to write.
    """
    height, width = view.image.shape[:2]
    figure_height = len(view.levels) * PANEL * height / width + REST
    figure = Figure(figsize=(WIDTH, figure_height), layout="compressed")
    axes = figure.subplots(len(view.levels), len(TITLES), squeeze=False)
    for row, level in zip(axes, view.levels, strict=True):
        _draw_row(row, view.image, level)
    for axis, column in zip(axes[0], TITLES, strict=True):
        axis.set_title(column, fontsize=9)
    if any(level.gates is not None for level in view.levels):
        gates = ScalarMappable(cmap=GATE_COLORS)
        gates.set_clim(0, 1)
        bar = figure.colorbar(gates, ax=axes[:, 3:5], location="bottom", aspect=18, pad=0.02)
        bar.set_ticks([0, 0.5, 1], labels=["0: nothing", "0.5", "1: all"], fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(NOTE, fontsize=8, x=0.02, horizontalalignment="left")
    figure.savefig(path, dpi=DPI)


def _draw_row(axes: np.ndarray, image: np.ndarray, level: LevelMaps) -> None:
    height, width = image.shape[:2]
    rows, columns = level.teacher.shape
    for axis in axes:
        axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[], aspect="equal")
    axes[0].imshow(image, extent=(0, width, height, 0))
    _draw_cells(axes[0], level.teacher.shape, level.stride)
    text = f"{level.name}\nstride {level.stride}\n{rows} x {columns} cells\nHCL {level.loss:#.3g}"
    axes[0].set_ylabel(text, fontsize=9, rotation=0, ha="right", va="center")

    maps = (level.teacher, level.fused, level.difference)
    most = max(float(values.max()) for values in maps)
    for axis, values in zip(axes[[1, 2, 5]], maps, strict=True):
        drawn = _draw_map(axis, values, level.stride, MAP_COLORS, most)
    bar = axes[5].figure.colorbar(drawn, ax=axes[5], aspect=12, pad=0.06)
    bar.ax.tick_params(labelsize=8)
    bar.ax.locator_params(nbins=4)

    if level.gates is None:
        for axis, words in zip(axes[3:5], NO_GATES[level.fusion], strict=True):
            axis.text(0.5, 0.5, words, transform=axis.transAxes, ha="center", va="center")
        return
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
    for axis, values in zip(axes[3:5], level.gates, strict=True):
        _draw_map(axis, values, level.stride, GATE_COLORS, 1)
        mean = f"mean {values.mean():.2f}"
        axis.text(0.04, 0.05, mean, transform=axis.transAxes, fontsize=8, bbox=box)


def _draw_map(axis: Axes, values: np.ndarray, stride: int, colors: str, most: float) -> Any:
    rows, columns = values.shape
    extent = (0, columns * stride, rows * stride, 0)  # the last cells may reach beyond the image
    return axis.imshow(
        values, cmap=colors, vmin=0, vmax=most, extent=extent, interpolation="nearest"
    )


def _draw_cells(axis: Axes, shape: tuple[int, ...], stride: int) -> None:
    """Draw the level's grid or, where that would hide the image, one cell in its middle."""
    rows, columns = shape
    if max(shape) <= MOST_LINES:
        axis.vlines(np.arange(1, columns) * stride, 0, rows * stride, **LINES)
        axis.hlines(np.arange(1, rows) * stride, 0, columns * stride, **LINES)
        return
    corner = (columns // 2 * stride, rows // 2 * stride)
    axis.add_patch(Rectangle(corner, stride, stride, fill=False, edgecolor="white"))
