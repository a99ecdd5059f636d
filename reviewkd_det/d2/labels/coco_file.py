"""The teacher's labels on a data set, as an ordinary COCO JSON file."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycocotools.mask as mask_util

from reviewkd_det.common.runs.files import replace_file

__all__ = ["Labels", "StudentClasses", "make_labels", "write_labels"]

# Detectron2 draws keypoints of this score and more; below it the place is a guess.
VISIBLE = 0.05
HIDDEN, SHOWN = 0, 2  # COCO's marks of a keypoint that is not labelled, and of one in sight


@dataclass(frozen=True)
class StudentClasses:
    """The classes of a student's labelled data.

    Args:
        names: names in the order of the student's classes.
        ids: category ids of a COCO file in that order.
        masks: whether the student trains masks; None writes those that there are.
        keypoints: number of keypoints that the student trains, 0 without any; None writes those
            that there are.
    """

    names: Sequence[str]
    ids: Sequence[int]
    masks: bool | None = None
    keypoints: int | None = None


@dataclass(frozen=True)
class Labels:
    """The labels on a data set.

    Args:
        images: sections of a COCO file.
        annotations: sections of a COCO file, with `score`.
        image_root: folder that the file names are relative to.
        empty: number of images without labels, whether or not they are kept.
    """

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    image_root: str
    empty: int


def make_labels(
    records: Sequence[Mapping[str, Any]],
    detections: Sequence[Iterable[Mapping[str, Any]]],
    scores: Sequence[float],
    classes: StudentClasses,
    *,
    keep_empty: bool,
) -> Labels:
    """Make the labels of the detections whose score is high enough.

    Args:
        records: Detectron2's dictionaries of the images.
        detections: of each image what was detected, with the student's classes.
        scores: least score of each class.
        classes: classes of the student.
        keep_empty: whether images without labels are kept.

    Raises:
        ValueError: the student trains what the teacher does not detect.
    """
    root = os.path.commonpath([os.path.dirname(os.path.abspath(r["file_name"])) for r in records])
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    empty = 0
    for number, (record, found) in enumerate(zip(records, detections, strict=True), 1):
        kept = [
            label
            for x in found
            if x["score"] >= scores[x["category_id"]]
            and (label := _annotation(x, record, classes)) is not None
        ]
        empty += not kept
        if not kept and not keep_empty:
            continue
        name = os.path.relpath(os.path.abspath(record["file_name"]), root)
        image = {"id": number, "file_name": name}
        images.append({**image, "height": record["height"], "width": record["width"]})
        for label in kept:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **label})
    return Labels(images, annotations, root, empty)


def write_labels(
    path: Path, labels: Labels, classes: StudentClasses, about: Mapping[str, Any]
) -> None:
    """Write labels as a whole.

    Args:
        path: path of the file.
        labels: labels on a data set.
        classes: classes of the student.
        about: section `info` of the file.
    """
    categories = [{"id": i, "name": n} for i, n in zip(classes.ids, classes.names, strict=True)]
    content = {
        "info": {**about, "image_root": labels.image_root},
        "images": labels.images,
        "annotations": labels.annotations,
        "categories": categories,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda part: part.write_text(json.dumps(content), encoding="utf-8"))


def _annotation(
    found: Mapping[str, Any], record: Mapping[str, Any], classes: StudentClasses
) -> dict[str, Any] | None:
    """One label; None where it covers nothing."""
    width, height = found["bbox"][2:]
    label = {
        "category_id": classes.ids[found["category_id"]],
        "bbox": found["bbox"],
        "area": width * height,
        "iscrowd": 0,
        "score": found["score"],
    }
    if "probabilities" in found:
        label["probabilities"] = found["probabilities"]
    if "segmentation" in found if classes.masks is None else classes.masks:
        label["segmentation"] = _given(found, "segmentation", "MASK_ON", record)
        label["area"] = int(mask_util.area(label["segmentation"]))
    if "keypoints" in found if classes.keypoints is None else classes.keypoints:
        label |= _keypoints(_given(found, "keypoints", "KEYPOINT_ON", record), classes.keypoints)
    return label if min(width, height, label["area"]) > 0 else None


def _given(found: Mapping[str, Any], name: str, key: str, record: Mapping[str, Any]) -> Any:
    if name not in found:
        raise ValueError(
            f"MODEL.{key} must be False where the teacher that labels gives no {name}; got True, "
            f"and none on {record['file_name']!r}"
        )
    return found[name]


def _keypoints(values: Sequence[float], count: int | None) -> dict[str, Any]:
    if count is not None and len(values) != 3 * count:
        raise ValueError(
            "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS must be that of the teacher that labels, "
            f"{len(values) // 3}; got {count}"
        )
    written: list[float] = []
    shown = 0
    for x, y, score in zip(values[::3], values[1::3], values[2::3], strict=True):
        is_shown = score >= VISIBLE
        written += [x, y, SHOWN] if is_shown else [0, 0, HIDDEN]
        shown += is_shown
    return {"keypoints": written, "num_keypoints": shown}
