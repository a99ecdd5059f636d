"""The images to draw, with their ground truth where there is one."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import annotations_to_instances
from detectron2.structures import Instances

from reviewkd_det.common.runs.record import saved_classes
from reviewkd_det.d2.data import CheckedDatasetMapper, load_image_folder
from reviewkd_det.d2.data.class_lists import order_by_name
from reviewkd_det.d2.data.views import show_classes

__all__ = [
    "Scene",
    "class_names",
    "dataset_records",
    "image_records",
    "map_as_trained",
    "read_scenes",
]


class Scene(NamedTuple):
    """An image, (h, w, 3) in RGB, and its objects; None where nobody has labelled it.

    The objects' fields are named as those of detections are; there are no scores.
    """

    name: str
    file_name: str
    image: np.ndarray
    truth: Instances | None


def dataset_records(name: str) -> list[dict]:
    """A registered data set's image dictionaries.

    Raises:
        KeyError: it is not registered.
    """
    if name not in DatasetCatalog.list():
        raise KeyError(f"--dataset must name a registered data set; got '{name}'")
    return DatasetCatalog.get(name)


def image_records(paths: Iterable[Path]) -> list[dict]:
    """Image dictionaries of files, and of all images in folders.

    Raises:
        FileNotFoundError, ValueError: see `load_image_folder`.
    """
    records: list[dict] = []
    for path in paths:
        records += load_image_folder(str(path)) if path.is_dir() else [{"file_name": str(path)}]
    return records


def class_names(dataset: str) -> list[str] | None:
    """A data set's class names; None where it is not known or its file is not here."""
    if dataset not in DatasetCatalog.list():
        return None
    if MetadataCatalog.get(dataset).get("thing_classes") is None:
        try:
            DatasetCatalog.get(dataset)  # fills in the metadata
        except FileNotFoundError:
            return None
    return MetadataCatalog.get(dataset).get("thing_classes")


def map_as_trained(dataset: str, folder: Path) -> None:
    """Give a data set the classes that a run has kept, by name.

    Args:
        dataset: name of a registered data set.
        folder: folder of the run.

    Raises:
        ValueError: objects are of a class that the run does not have.
    """
    known = saved_classes(folder)
    if known is not None and known != class_names(dataset):
        order = order_by_name(dataset, DatasetCatalog.get(dataset), known, f"the run in '{folder}'")
        show_classes(dataset, order, known, None)


def read_scenes(records: Sequence[dict], count: int) -> list[Scene]:
    """Read the first images; the names of all are different.

    Args:
        records: image dictionaries of Detectron2, with annotations or without.
        count: number of images.

    Raises:
        ValueError: an image cannot be read, or has not its annotated size.
    """
    read = CheckedDatasetMapper(is_train=False, augmentations=[], image_format="RGB")
    scenes: dict[str, Scene] = {}
    for record in islice(records, count):
        name = stem = Path(record["file_name"]).stem
        while name in scenes:
            name = f"{stem}_{len(scenes) + 1}"
        image = read(record)["image"].permute(1, 2, 0).numpy()
        scenes[name] = Scene(name, record["file_name"], image, _truth(record, image.shape[:2]))
    return list(scenes.values())


def _truth(record: dict, size: tuple[int, ...]) -> Instances | None:
    if "annotations" not in record:
        return None
    objects = [dict(entry) for entry in record["annotations"] if not entry.get("iscrowd", 0)]
    if not all("segmentation" in entry for entry in objects):
        for entry in objects:
            entry.pop("segmentation", None)  # Detectron2 wants all masks or none
    truth = annotations_to_instances(objects, size, mask_format="bitmask").get_fields()
    return Instances(size, **{k.replace("gt_", "pred_"): value for k, value in truth.items()})
