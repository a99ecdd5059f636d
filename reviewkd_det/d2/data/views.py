"""A data set as a run reads it: with the classes of another list, or held for its next use."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from reviewkd_det.common.runs.files import replace_file
from reviewkd_det.d2.data.coco_checks import read_coco_file

__all__ = ["hold", "show_classes", "show_own", "write_evaluation_file"]

Records = list[dict[str, Any]]


def show_classes(
    name: str, order: Sequence[int], classes: Sequence[str], json_file: str | None
) -> None:
    """Give a data set the classes of another list, until `show_own`.

    Args:
        name: name of the data set.
        order: place in that list of each of its own classes, -1 for one that no object has.
        classes: names of that list.
        json_file: COCO-format file for the evaluation, as `write_evaluation_file` writes it; None
            for a data set that has none.
    """
    own = MetadataCatalog.get(name)
    shown = type(own)(**own.as_dict())
    shown.__dict__["thing_classes"] = list(classes)
    shown.__dict__.pop("thing_colors", None)  # those of its own order
    ids = own.get("thing_dataset_id_to_contiguous_id")
    if json_file is not None:
        shown.__dict__["json_file"] = json_file
        ids = {index + 1: index for index in range(len(classes))}
    elif ids is not None:
        ids = {category: order[index] for category, index in ids.items() if order[index] >= 0}
    if ids is not None:
        shown.__dict__["thing_dataset_id_to_contiguous_id"] = ids
    DatasetCatalog[name] = _View(name, DatasetCatalog[name], own, shown, order)
    MetadataCatalog[name] = shown


def show_own(name: str) -> None:
    """Give a data set its own classes again."""
    load = DatasetCatalog.data.get(name)
    while isinstance(load, _View | _Held):
        if isinstance(load, _View):
            MetadataCatalog[name] = load.own
        load = load.load
        DatasetCatalog[name] = load


def hold(name: str, records: Records) -> None:
    """Let the next that asks for a data set get records that are loaded already."""
    DatasetCatalog[name] = _Held(name, DatasetCatalog[name], records)


def write_evaluation_file(
    source: str, target: Path, order: Mapping[int, int], classes: Sequence[str]
) -> None:
    """Write a COCO-format file for an evaluation by other class numbers.

    Categories get the numbers 1, 2, ... of the list. An object with "ignore": 1, which pycocotools
    would count as missed, becomes a crowd.

    Args:
        source: COCO-format file.
        target: file to write.
        order: place in the list by category id; an object of another category is left out.
        classes: names of the list.
    """
    content = read_coco_file(source, needs_annotations=False)
    own = {order[x["id"]]: x for x in content["categories"] if order.get(x["id"], -1) >= 0}
    content["categories"] = [
        {**own.get(index, {}), "id": index + 1, "name": name} for index, name in enumerate(classes)
    ]
    kept = [x for x in content["annotations"] if order.get(x["category_id"], -1) >= 0]
    for annotation in kept:
        annotation["category_id"] = order[annotation["category_id"]] + 1
        if annotation.get("ignore", 0):
            annotation["iscrowd"] = 1
    content["annotations"] = kept
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content)
    replace_file(target, lambda part: part.write_text(text, encoding="utf-8"))


class _View:
    def __init__(
        self, name: str, load: Callable[[], Records], own: Any, shown: Any, order: Sequence[int]
    ) -> None:
        self.name, self.load = name, load
        self.own, self.shown = own, shown
        self.order = order

    def __call__(self) -> Records:
        MetadataCatalog[self.name] = self.own  # which loading compares with the file
        try:
            records = self.load()
        finally:
            MetadataCatalog[self.name] = self.shown
        return [self._renumbered(record) for record in records]

    def _renumbered(self, record: dict[str, Any]) -> dict[str, Any]:
        if "annotations" not in record:
            return record
        objects = [
            {**x, "category_id": self.order[x["category_id"]]} for x in record["annotations"]
        ]
        return {**record, "annotations": objects}


class _Held:
    def __init__(self, name: str, load: Callable[[], Records], records: Records) -> None:
        self.name, self.load = name, load
        self.records: Records = records

    def __call__(self) -> Records:
        if DatasetCatalog[self.name] is self:
            DatasetCatalog[self.name] = self.load
        return self.records
