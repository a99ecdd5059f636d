"""Detections of several runs and the ground truth, side by side.

Drawn with Matplotlib: Detectron2's `Visualizer` needs OpenCV, which nothing else here does, and its
outlines let half of the image through, which changes the colours.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
from detectron2.structures import Instances
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from reviewkd_det.pictures.scenes import Scene

__all__ = ["DPI", "WIDTH", "color_of", "draw_predictions"]

WIDTH, DPI = 10.0, 160  # inches, and pixels in each: text of 9 points is 12 pixels high at 1000
MOST_COLUMNS = 4
COLORS = [to_hex(color) for color in color_sequences["petroff10"]]  # safe for colour-blind readers
# Of the figure's heights, in inches: of the title, of a panel's title and of a row of the legend.
TITLE, PANEL_TITLE, LEGEND_ROW, LEGEND_COLUMNS = 0.3, 0.22, 0.25, 10


def color_of(label: int) -> str:
    """The colour of a class; more than ten take turns, so a class is told by its name as well."""
    return COLORS[label % len(COLORS)]


def draw_predictions(
    scene: Scene,
    found: Mapping[str, Instances],
    classes: Sequence[str] | None,
    min_score: float,
    path: Path,
) -> None:
    """Draw the ground truth, where there is one, and each run's detections.

    Args:
        scene: the image.
        found: by run, what it detects in the image.
        classes: their names; None writes their numbers.
        min_score: of the detections, for the title.
        path: the PNG file to write.
    """
    panels = [] if scene.truth is None else [("ground truth", scene.truth)]
    panels += found.items()
    with_masks = any(instances.has("pred_masks") for instances in found.values())
    present = sorted({x for _, instances in panels for x in instances.pred_classes.tolist()})
    rows = math.ceil(len(panels) / MOST_COLUMNS)
    columns = math.ceil(len(panels) / rows)
    width = WIDTH * min(1.0, columns / 2)
    height = rows * (width / columns * scene.image.shape[0] / scene.image.shape[1] + PANEL_TITLE)
    height += TITLE + LEGEND_ROW * math.ceil(len(present) / LEGEND_COLUMNS)
    figure = Figure(figsize=(width, height), layout="compressed")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, panel in zip_longest(axes, panels):
        axis.set_axis_off()
        if panel is not None:
            axis.set_title(panel[0], fontsize=11)
            _draw_panel(axis, scene.image, panel[1], classes, with_masks=with_masks)
    title = f"{scene.name}: detections with a score of {min_score:.0%} or more, coloured by class"
    figure.suptitle(title, fontsize=11)
    handles = [Patch(color=color_of(label), label=_name(label, classes)) for label in present]
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=min(len(handles), LEGEND_COLUMNS),
            frameon=False,
            fontsize=9,
            handlelength=1,
            columnspacing=1.2,
        )
    figure.savefig(path, dpi=DPI)


def _draw_panel(
    axis: Axes,
    image: np.ndarray,
    instances: Instances,
    classes: Sequence[str] | None,
    *,
    with_masks: bool,
) -> None:
    height, width = image.shape[:2]
    extent = (0, width, height, 0)
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.imshow(image, extent=extent)
    boxes, labels = instances.pred_boxes.tensor.tolist(), instances.pred_classes.tolist()
    scores = instances.scores.tolist() if instances.has("scores") else []
    masks = instances.pred_masks if with_masks and instances.has("pred_masks") else []
    objects = list(zip_longest(boxes, labels, scores, masks))
    for box, label, score, mask in reversed(objects):  # of detections, the surest comes to the top
        left, top, right, bottom = box
        color = color_of(label)
        for edge, line_width in (("black", 3.2), (color, 1.8)):
            frame = Rectangle((left, top), right - left, bottom - top, fill=False)
            frame.set(edgecolor=edge, linewidth=line_width)
            axis.add_patch(frame)
        if mask is not None:
            inside = np.ma.masked_equal(np.asarray(mask, dtype=float), 0)
            axis.imshow(inside, cmap=ListedColormap([color]), alpha=0.5, extent=extent)
        has_room_above = top > 0.07 * height
        text = _name(label, classes) + (f" {score:.0%}" if score is not None else "")
        axis.text(
            left,
            top,
            text,
            color="black" if _is_light(color) else "white",
            fontsize=8,
            verticalalignment="bottom" if has_room_above else "top",
            bbox={"facecolor": color, "edgecolor": "none", "pad": 1},
            clip_on=True,
        )


def _name(label: int, classes: Sequence[str] | None) -> str:
    return f"class {label}" if classes is None else classes[label]


def _is_light(color: str) -> bool:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 100
