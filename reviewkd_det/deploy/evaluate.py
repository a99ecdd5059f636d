"""COCO's AP of a detector on a COCO-format file, by pycocotools alone."""

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from reviewkd_det.deploy.detections import Detections
from reviewkd_det.deploy.images import read_image

__all__ = ["evaluate", "match_categories"]

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # of the first six numbers of COCOeval


def evaluate(
    detect: Callable[[np.ndarray], Detections],
    classes: Sequence[str],
    json_file: str | Path,
    images: str | Path,
) -> dict[str, dict[str, float]]:
    """Compute the AP, in percent.

    Args:
        detect: function from an image, (H, W, 3), uint8, red first, to its detections.
        classes: names of the detector's classes.
        json_file: COCO-format file with the true objects.
        images: folder of its images.

    Returns:
        AP, AP50, AP75 and those of small, medium and large objects, by "bbox" and, of a detector
        with masks where the file has some, "segm"; NaN where there is no object.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is no such file, or has none of the classes.
    """
    truth = _read(json_file)
    categories = match_categories(classes, truth, json_file)
    results: list[dict[str, Any]] = []
    for number in tqdm(truth.getImgIds(), unit="image", mininterval=1):
        (entry,) = truth.loadImgs(number)
        results += detect(read_image(Path(images, entry["file_name"]))).as_coco(number, categories)
    kinds = ["bbox"]
    outlines = any(x.get("segmentation") for x in truth.dataset["annotations"])
    if outlines and any("segmentation" in x for x in results):
        kinds.append("segm")
    return {kind: _scores(truth, results, kind) for kind in kinds}


def match_categories(classes: Sequence[str], truth: COCO, source: str | Path) -> list[int]:
    """The number of the category of each class, by its name; -1 for one that the file has not.

    Raises:
        ValueError: the file has none of them, or has a category that is no class.
    """
    numbers = {x["name"]: x["id"] for x in truth.loadCats(truth.getCatIds())}
    if unknown := [name for name in numbers if name not in classes]:
        raise ValueError(
            f"categories of '{source}' must be classes of the detector; got {unknown[0]!r}, and "
            f"the classes are {', '.join(classes)}"
        )
    return [numbers.get(name, -1) for name in classes]


def _read(json_file: str | Path) -> COCO:
    if not Path(json_file).is_file():
        raise FileNotFoundError(f"COCO-format file must exist; got '{json_file}'")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(json_file))
        if not truth.dataset["images"] or "annotations" not in truth.dataset:
            raise ValueError("it has no images or no annotations")
    except (json.JSONDecodeError, AssertionError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"COCO-format file must be one; got '{json_file}': {error}") from error
    return truth


def _scores(truth: COCO, results: list[dict[str, Any]], kind: str) -> dict[str, float]:
    if not results:
        return dict.fromkeys(NAMES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        known = [x for x in results if x["category_id"] >= 0]
        evaluation = COCOeval(truth, truth.loadRes(known), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = 100 * np.asarray(evaluation.stats[: len(NAMES)], float)
    return {
        name: float(value) if value >= 0 else float("nan")
        for name, value in zip(NAMES, values, strict=True)
    }
