"""Checks of semantic segmentation: a picture beside each image, whose grey values are classes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager
from PIL import Image

from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.data.mapper import naming
from reviewkd_det.d2.data.register import finding_data

__all__ = ["check_semantic", "read_labels"]

HEAD = "MODEL.SEM_SEG_HEAD"
SEGMENTORS = ("SemanticSegmentor", "PanopticFPN")


def check_semantic(cfg: CfgNode, dataset_names: Sequence[str], most: int | None = None) -> None:
    """Check that data sets suit the config's semantic head, where it has one.

    Args:
        cfg: config of the run.
        dataset_names: names of the data sets.
        most: number of pictures that are read of each data set, evenly spread; None reads all.

    Raises:
        FileNotFoundError: a picture is missing.
        ValueError: one has other classes, other ignored pixels, or a picture of other values.
    """
    if plain_config(cfg).MODEL.META_ARCHITECTURE not in SEGMENTORS:
        return
    head = cfg.MODEL.SEM_SEG_HEAD
    for name in dataset_names:
        metadata = MetadataCatalog.get(name)
        classes = metadata.get("stuff_classes")
        if classes is not None and len(classes) != head.NUM_CLASSES:
            raise ValueError(
                f"{HEAD}.NUM_CLASSES must be the number of stuff_classes of '{name}', "
                f"{len(classes)}; got {head.NUM_CLASSES}"
            )
        ignored = metadata.get("ignore_label", head.IGNORE_VALUE)
        if ignored != head.IGNORE_VALUE:
            raise ValueError(
                f"{HEAD}.IGNORE_VALUE must be the ignore_label of '{name}', {ignored}; got "
                f"{head.IGNORE_VALUE}"
            )
        with finding_data([name]):
            records = DatasetCatalog.get(name)
        _check_pictures(records, head.NUM_CLASSES, ignored, name, most)


def _check_pictures(
    records: Sequence[Mapping[str, Any]], classes: int, ignored: int, name: str, most: int | None
) -> None:
    if not records or "sem_seg_file_name" not in records[0]:
        raise ValueError(
            f"images of '{name}' must have a sem_seg_file_name for {HEAD}; got none for the first"
        )
    step = 1 if most is None else max(1, len(records) // most)
    for record in records[::step]:
        _read(record["sem_seg_file_name"], classes, ignored)


def read_labels(dataset_name: str) -> Callable[..., np.ndarray]:
    """A function that reads the classes of an image's pixels, for Detectron2's evaluator.

    It raises a ValueError where a value is neither a class nor ignored: counted along, one would
    be taken for another class.
    """
    metadata = MetadataCatalog.get(dataset_name)
    classes, ignored = len(metadata.stuff_classes), metadata.ignore_label
    return lambda file_name, dtype=None: _read(file_name, classes, ignored).astype(dtype)


def _read(file_name: str, classes: int, ignored: int) -> np.ndarray:
    if not PathManager.isfile(file_name):
        raise FileNotFoundError(f"every sem_seg_file_name must be a file; got {file_name!r}")
    with naming(file_name), PathManager.open(file_name, "rb") as file, Image.open(file) as image:
        mode, labels = image.mode, np.asarray(image)
    if mode != "L":  # Detectron2 trains on what it reads as grey, and judges by the values
        raise ValueError(
            f"picture of classes {file_name!r} must be grey of 8 bits, mode L; got mode {mode}"
        )
    values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    if unknown := [int(value) for value in values if value >= classes and value != ignored]:
        raise ValueError(
            f"picture of classes {file_name!r} must have values 0 to {classes - 1}, and {ignored} "
            f"for what is ignored; got {', '.join(map(str, unknown[:5]))}"
        )
    return labels
