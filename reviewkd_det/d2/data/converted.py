"""Data of other formats, converted to a COCO-format file on first use.

So they pass the same checks, and are evaluated as COCO is. The file is written anew in each run,
because reading the annotations costs less than training on what they were before.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from reviewkd_det.common.runs.files import file_name_of
from reviewkd_det.d2.data.coco_format import load_coco_format
from reviewkd_det.d2.data.mapper import find_upright, naming

__all__ = ["coco_content", "image_entry", "register_converted"]

_registered: dict[str, tuple[str, ...]] = {}  # name: what it was registered with


def register_converted(
    name: str,
    source: tuple[str, ...],
    convert: Callable[[], dict[str, Any]],
    output_dir: str,
    *,
    needs_annotations: bool = True,
) -> None:
    """Make data known to Detectron2 under a new name; it is converted on first use.

    Registering a name again with the same source does nothing.

    Args:
        name: name for `DATASETS.TRAIN` and `DATASETS.TEST`.
        source: what the data is from, to tell names that are given twice; its second part is a
            file or folder, beside or in which is kept what is known of the images.
        convert: function that returns the content of a COCO-format file, with whole paths.
        output_dir: folder of the run; the file goes to `data/<name>.json` in it.
        needs_annotations: whether the data must have labels.

    Raises:
        ValueError: the name is taken.
    """
    if _registered.get(name) == source:
        return
    if name in DatasetCatalog:
        raise ValueError(
            f"dataset name must be new; got {name!r} for {', '.join(source)}; choose another name"
        )
    json_file = Path(output_dir, "data", file_name_of(name, ".json"))
    written: list[Path] = []  # in this process

    def load() -> list[dict]:
        if not (written and json_file.is_file()):
            _write(json_file, convert())
            written.append(json_file)
        return load_coco_format(str(json_file), "", name, needs_annotations=needs_annotations)

    DatasetCatalog.register(name, load)
    metadata = MetadataCatalog.get(name)
    metadata.set(json_file=str(json_file), image_root="", evaluator_type="coco")
    metadata.set(converted_from=source[1])
    _registered[name] = source


def coco_content(images: list[tuple[dict, list[dict]]], class_names: list[str]) -> dict[str, Any]:
    """A COCO-format file of images, each with its objects; ids are counted from 1.

    Args:
        images: pairs of `file_name`, `height` and `width`, and of objects with `bbox`, a
            `category_id` counted from 0 and, optionally, `area`, `iscrowd` and `segmentation`.
        class_names: names of the classes.
    """
    annotations: list[dict[str, Any]] = []
    for image_id, (_, objects) in enumerate(images, start=1):
        for entry in objects:
            defaults = {"area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0}
            ids = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": entry["category_id"] + 1,
            }
            annotations.append({**defaults, **entry, **ids})
    return {
        "images": [{"id": i, **image} for i, (image, _) in enumerate(images, start=1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(class_names, start=1)],
    }


def image_entry(file: Path) -> dict[str, Any]:
    """The image of a file as `coco_content` takes it, with its upright size.

    Raises:
        ValueError: it cannot be read.
    """
    with naming(str(file)):
        _, (width, height) = find_upright(str(file))
    return {"file_name": str(file), "height": height, "width": width}


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write a whole file, where another process may do the same."""
    text = json.dumps(content)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
