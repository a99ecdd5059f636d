"""The demo's results: a table, `summary.json` and a picture, from the folders of its four runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # a picture is written, no window opened

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image
from tabulate import tabulate

from benchmarks.records import METRICS

__all__ = ["write_report"]

RUNS = {
    "teacher": "teacher",
    "baseline": "student, baseline",
    "baseline_equal_time": "student, baseline at equal time",
    "distilled": "student, distilled",
    "distilled_unlabeled": "student, distilled, also on unlabelled",
}
# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLORS = {
    "teacher": "#000000",
    "baseline": "#E69F00",
    "baseline_equal_time": "#56B4E9",
    "distilled": "#009E73",
    "distilled_unlabeled": "#CC79A7",
}
SCENES = 4  # the first ones of the validation set
SCORE_THRESHOLD = 0.5


def write_report(output: Path) -> str:
    """Write `summary.json` and `report.png`, and return the table to print.

    Args:
        output: folder that holds one folder per run, each as `Trainer` left it.
    """
    configs = {name: _read_config(output / name) for name in RUNS}
    summary = {name: _read_run(output / name) for name in RUNS}
    (output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _draw(output, summary, configs["teacher"].DATASETS.TEST[0])
    rows = [
        [
            RUNS[name],
            *(f"{run[metric]:.1f}" for metric in METRICS),
            f"{run['parameters']:,}",
            f"{_count_scenes(configs[name].DATASETS.TRAIN):,}",
            f"{_count_scenes(configs[name].DATASETS.UNLABELED):,}",
            f"{run['iterations']:,}",
            f"{run['train_seconds']:.0f}",
        ]
        for name, run in summary.items()
    ]
    headers = [
        "run", *METRICS, "parameters", "labelled scenes", "unlabelled", "iterations",
        "train seconds",
    ]  # fmt: skip
    table = tabulate(
        rows,
        headers,
        tablefmt="github",
        colalign=("left", *["right"] * 8),
        disable_numparse=True,
    )
    return (
        f"{table}\n\nThe teacher saw more labels than the student: the column 'labelled scenes'."
        f"\nPictures and curves: {output / 'report.png'}"
    )


def _read_config(folder: Path) -> CfgNode:
    with (folder / "config.yaml").open(encoding="utf-8") as file:
        return CfgNode.load_cfg(file)


def _read_run(folder: Path) -> dict[str, Any]:
    run = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {
        # Detectron2 gives no number where a model detects nothing.
        **{metric: round(run["results"]["bbox"][metric] or 0.0, 2) for metric in METRICS},
        **{key: run[key] for key in ("parameters", "iterations", "train_seconds")},
    }


def _count_scenes(names: Sequence[str]) -> int:
    return sum(len(DatasetCatalog.get(name)) for name in names)


def _draw(output: Path, summary: dict[str, dict[str, Any]], dataset: str) -> None:
    figure = plt.figure(figsize=(15, 2.2 * SCENES), layout="constrained")
    pictures, curves = np.asarray(figure.subfigures(1, 2, width_ratios=[4, 2.6])).tolist()
    columns = ["ground truth", "baseline", "distilled", "distilled_unlabeled"]
    axes = pictures.subplots(SCENES, len(columns), squeeze=False)
    records = DatasetCatalog.get(dataset)[:SCENES]  # first, for it fills in the metadata
    boxes = {"ground truth": None} | {
        name: _predictions(output / name, dataset) for name in columns[1:]
    }
    classes = MetadataCatalog.get(dataset).thing_classes
    for row, record in zip(axes, records, strict=True):
        for axis, name in zip(row, columns, strict=True):
            axis.imshow(Image.open(record["file_name"]))
            axis.set_axis_off()
            found = boxes[name]
            objects = record["annotations"] if found is None else found.get(record["image_id"], [])
            _draw_boxes(axis, objects, classes, COLORS.get(name, "#FFFFFF"))
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name.replace("_", ",\n"))
    pictures.suptitle(f"First {SCENES} validation scenes, score at least {SCORE_THRESHOLD}")
    _draw_curves(curves.subplots(), output, summary)
    figure.savefig(output / "report.png", dpi=110)
    plt.close(figure)


def _predictions(folder: Path, dataset: str) -> dict[int, list[dict]]:
    """Detections by image, with contiguous class ids, as COCOEvaluator wrote them."""
    to_index = MetadataCatalog.get(dataset).thing_dataset_id_to_contiguous_id
    path = folder / "inference" / "coco_instances_results.json"
    by_image: dict[int, list[dict]] = {}
    for result in json.loads(path.read_text(encoding="utf-8")):
        if result["score"] >= SCORE_THRESHOLD:
            result["category_id"] = to_index[result["category_id"]]
            by_image.setdefault(result["image_id"], []).append(result)
    return by_image


def _draw_boxes(axis: Axes, objects: list[dict], classes: list[str], color: str) -> None:
    for entry in objects:
        mode = entry.get("bbox_mode", BoxMode.XYWH_ABS)
        x, y, width, height = BoxMode.convert(entry["bbox"], mode, BoxMode.XYWH_ABS)
        for edge, line_width in (("black", 3.5), (color, 2)):
            axis.add_patch(plt.Rectangle((x, y), width, height, fill=False, ec=edge, lw=line_width))
        background = {"facecolor": color, "edgecolor": "none", "pad": 1}
        text = classes[entry["category_id"]]
        axis.text(x, y, text, color="black", fontsize=9, va="bottom", clip_on=True, bbox=background)


def _draw_curves(axis: Axes, output: Path, summary: dict[str, dict[str, Any]]) -> None:
    for name, run in summary.items():
        lines = (output / name / "metrics.json").read_text(encoding="utf-8").splitlines()
        points = [json.loads(line) for line in lines]
        points = [point for point in points if "bbox/AP" in point]
        if name == "teacher":
            label = f"teacher: AP {run['AP']:.1f}"
            axis.axhline(run["AP"], color=COLORS[name], linestyle="--", label=label)
            continue
        # Detectron2 counts from 0 within a run and past the last iteration at its end.
        iterations = [min(point["iteration"] + 1, run["iterations"]) for point in points]
        label = f"{RUNS[name]}: AP {run['AP']:.1f} in {run['train_seconds']:.0f} s"
        values = [point["bbox/AP"] for point in points]
        axis.plot(iterations, values, color=COLORS[name], marker="o", label=label)
    axis.set_xlabel("iteration")
    axis.set_ylabel("box AP on the validation scenes")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", bbox_to_anchor=(0, -0.08), frameon=False)
