"""Data of YOLO's format: a data.yaml, images, and a text file of labels for each image.

A row is a class and a box, `class x y width height` with the middle of the box, or a class and the
corners of a polygon, `class x1 y1 x2 y2 x3 y3 ...`; all in parts of the image's width and height.
An image without a file, or with an empty one, has no objects.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from reviewkd_det.d2.data.converted import coco_content, image_entry, register_converted
from reviewkd_det.d2.data.yolo_files import (
    KEY,
    class_names,
    image_files,
    label_file,
    read_data_yaml,
)

__all__ = ["read_yolo_format", "register_yolo_format"]

logger = logging.getLogger(__name__)

TOLERANCE = 0.001  # by which rounded coordinates may leave the image, in parts of its size


def register_yolo_format(
    name: str, data_yaml: str, split: str, *, output_dir: str, needs_annotations: bool = True
) -> None:
    """Make a split of YOLO data known to Detectron2 under a new name; it is read on first use.

    Args:
        name: name for `DATASETS.TRAIN` and `DATASETS.TEST`.
        data_yaml: path of the file that names classes and splits.
        split: key of the split in it, such as train or val.
        output_dir: folder of the run, which keeps the data in COCO's format.
        needs_annotations: whether there must be labels.

    Raises:
        ValueError: the name is taken.
    """
    convert = partial(read_yolo_format, data_yaml, split, needs_annotations=needs_annotations)
    source = (KEY, data_yaml, split)
    register_converted(name, source, convert, output_dir, needs_annotations=needs_annotations)


def read_yolo_format(
    data_yaml: str, split: str, *, needs_annotations: bool = True
) -> dict[str, Any]:
    """Read a split as the content of a COCO-format file; of unlabelled data the images alone.

    Raises:
        FileNotFoundError: the data.yaml, an image or, with needs_annotations, every label file is
            missing.
        KeyError: the data.yaml has no such split.
        ValueError: the data.yaml or a row of a label file is malformed, or an image unreadable.
    """
    path = Path(data_yaml)
    content = read_data_yaml(path)
    if not needs_annotations:
        found = image_files(content, path, split)
        return coco_content([(image_entry(image), []) for image in found], [])
    classes = class_names(content, path)
    files = [(image, label_file(image)) for image in image_files(content, path, split)]
    without = [label for _, label in files if not label.is_file()]
    if len(without) == len(files):
        raise FileNotFoundError(
            f"split '{split}' of '{path}' must have label files; got none for {len(files)} images, "
            f"the first would be '{without[0]}'"
        )
    # Rows of a pose detector have a box before their keypoints, which are not read.
    keypoint_values = _keypoint_values(content, path)
    images, repeated = [], 0
    for file, label in files:
        image = image_entry(file)
        rows = _rows(label) if label.is_file() else {}
        repeated += sum(len(numbers) - 1 for numbers in rows.values())
        objects = [
            _object(row.split(), f"'{label}', line {numbers[0]}", classes, keypoint_values)
            for row, numbers in rows.items()
        ]
        scaled = [_in_pixels(entry, image["width"], image["height"]) for entry in objects]
        images.append((image, scaled))
    logger.log(
        logging.WARNING if 2 * len(without) > len(files) else logging.INFO,
        "%s, split %s: %d images, %d of them without a label file and so without objects; %d "
        "repeated rows are left out",
        path,
        split,
        len(files),
        len(without),
        repeated,
    )
    return coco_content(images, classes)


def _rows(label: Path) -> dict[str, list[int]]:
    """The rows of a label file, each with the numbers of its lines."""
    try:
        lines = label.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"label file must be text; got '{label}': {error}") from error
    rows: dict[str, list[int]] = {}
    for number, line in enumerate(lines, start=1):
        if row := " ".join(line.split()):
            rows.setdefault(row, []).append(number)
    return rows


def _object(
    words: list[str], where: str, classes: list[str], keypoint_values: int
) -> dict[str, Any]:
    """An object in parts of the image: its class and `box` or `polygon`."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"{where} must be numbers; got '{' '.join(words)}'") from None
    number, *coordinates = values
    if keypoint_values and len(coordinates) == 4 + keypoint_values:
        coordinates = coordinates[:4]
    if len(coordinates) != 4 and (len(coordinates) < 6 or len(coordinates) % 2):
        raise ValueError(
            f"{where} must be a class and 4 numbers of a box, or 6 or more of a polygon, in pairs; "
            f"got {len(coordinates)} numbers after the class"
        )
    if number not in range(len(classes)):
        raise ValueError(
            f"class in {where} must be from 0 to {len(classes) - 1}, as data.yaml names them; got "
            f"{words[0]}"
        )
    if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in coordinates):
        outside = next(x for x in coordinates if not -TOLERANCE <= x <= 1 + TOLERANCE)
        raise ValueError(
            f"coordinates in {where} must be parts of the image's size, from 0 to 1; got {outside}"
        )
    shape = "box" if len(coordinates) == 4 else "polygon"
    return {"category_id": int(number), shape: coordinates}


def _in_pixels(entry: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """An object as `coco_content` takes it."""
    found = {"category_id": entry["category_id"]}
    if "box" in entry:
        x, y, w, h = entry["box"]
        return {
            **found,
            "bbox": [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height],
        }
    xs = [x * width for x in entry["polygon"][::2]]
    ys = [y * height for y in entry["polygon"][1::2]]
    corners = list(zip(xs, ys, strict=True))
    following = corners[1:] + corners[:1]
    doubled = sum(a * d - c * b for (a, b), (c, d) in zip(corners, following, strict=True))
    return {
        **found,
        "bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
        "area": abs(doubled) / 2,
        "segmentation": [[value for corner in corners for value in corner]],
    }


def _keypoint_values(content: dict[str, Any], path: Path) -> int:
    """How many numbers of a row are keypoints."""
    if not (shape := content.get("kpt_shape")):
        return 0
    if not isinstance(shape, list) or [type(x) for x in shape] != [int, int]:
        raise ValueError(f"'kpt_shape' of '{path}' must be [number, 2 or 3]; got {shape!r}")
    logger.warning("Keypoints of '%s' are not read, only boxes", path)
    return shape[0] * shape[1]
