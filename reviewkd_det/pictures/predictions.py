"""Detections of several runs and the ground truth, side by side.

torchvision draws; Detectron2's `Visualizer` needs OpenCV, which nothing else here does.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from detectron2.structures import Instances
from matplotlib import color_sequences, font_manager
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, resize
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from reviewkd_det.pictures.scenes import Scene

__all__ = ["DPI", "WIDTH", "color_of", "draw_objects", "draw_predictions"]

WIDTH, DPI = 10.0, 160  # inches, and pixels in each: text of 9 points is 12 pixels high at 1000
MOST_COLUMNS = 4
COLORS = [to_hex(color) for color in color_sequences["petroff10"]]  # safe for colour-blind readers
FONT_SIZE = 18  # pixels
# The font comes with Matplotlib. Before torchvision 0.23 there is no background.
TEXT: Any = {"font": font_manager.findfont("DejaVu Sans"), "font_size": FONT_SIZE, "width": 0}
HAS_BACKGROUND = "fill_labels" in inspect.signature(draw_bounding_boxes).parameters
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
        scene: image and its ground truth.
        found: detections in the image, by run.
        classes: names of the classes; None writes their numbers.
        min_score: least score of the detections, for the title.
        path: PNG file to write.
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
            image = torch.from_numpy(scene.image).permute(2, 0, 1)
            image = resize(image, _panel_size(scene, width / columns), antialias=True)
            labels = _labels(panel[1], classes)
            drawn = draw_objects(image, panel[1], labels, with_masks=with_masks)
            axis.imshow(drawn.permute(1, 2, 0))
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


def draw_objects(
    image: Tensor, instances: Instances, labels: Sequence[str], *, with_masks: bool
) -> Tensor:
    """Draw boxes in the colours of their classes, labels above them, and masks.

    Args:
        image: (3, h, w) in uint8, of any size; it shows all of what the instances lie in.
        instances: objects to draw; of detections, the surest first.
        labels: text of each object.
        with_masks: whether masks are drawn where there are some.

    Returns:
        A new image, (3, h, w).
    """
    if len(instances) == 0:
        return image
    scale = image.shape[-1] / instances.image_size[1]
    order = list(range(len(instances)))[::-1]  # the surest comes to the top
    boxes = scale * instances.pred_boxes.tensor[order].cpu()
    colors = [color_of(x) for x in instances.pred_classes[order].tolist()]
    if with_masks and instances.has("pred_masks"):
        masks = torch.as_tensor(instances.pred_masks)[order].cpu()
        masks = resize(masks, list(image.shape[-2:]), InterpolationMode.NEAREST)
        image = draw_segmentation_masks(image, masks, alpha=0.5, colors=colors)
    for width, color in ((5, "black"), (3, colors)):
        image = draw_bounding_boxes(image, boxes, colors=color, width=width)
    # The labels by themselves, at the corners of boxes without a frame, above those that are seen.
    above = boxes[:, 1] - 1.4 * FONT_SIZE
    boxes[:, 1] = torch.where(above > 0, above, boxes[:, 1])
    text_colors: list[str] = colors
    background = {}
    if HAS_BACKGROUND:
        text_colors = ["black" if _is_light(color) else "white" for color in colors]
        background = {"fill_labels": True}
    texts = [labels[i] for i in order]
    return draw_bounding_boxes(
        image, boxes, texts, colors, label_colors=text_colors, **TEXT, **background
    )


def _panel_size(scene: Scene, width: float) -> list[int]:
    """Pixels, (h, w), of an image that is so many inches wide, so that all text has one size."""
    height, columns = scene.image.shape[:2]
    return [round(width * DPI * height / columns), round(width * DPI)]


def _labels(instances: Instances, classes: Sequence[str] | None) -> list[str]:
    names = [_name(label, classes) for label in instances.pred_classes.tolist()]
    if not instances.has("scores"):
        return names
    pairs = zip(names, instances.scores.tolist(), strict=True)
    return [f"{name} {score:.0%}" for name, score in pairs]


def _name(label: int, classes: Sequence[str] | None) -> str:
    return f"class {label}" if classes is None else classes[label]


def _is_light(color: str) -> bool:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 100
