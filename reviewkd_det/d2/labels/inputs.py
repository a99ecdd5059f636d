"""The images that a teacher labels or is judged on, and the classes of the student."""

import logging
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from reviewkd_det.d2.labels.coco_file import StudentClasses
from reviewkd_det.d2.labels.settings import KEY, LabelSettings
from reviewkd_det.d2.labels.teacher import DetectingTeacher

__all__ = [
    "calibration_records",
    "known_classes",
    "read_records",
    "student_classes",
    "unlabeled_records",
]

logger = logging.getLogger(__name__)
Record = dict[str, Any]


def read_records(names: Sequence[str]) -> list[Record]:
    """The images of some data sets, one after the other."""
    return [record for name in names for record in DatasetCatalog.get(name)]


def unlabeled_records(name: str, train: Sequence[Record]) -> list[Record]:
    """The images of a data set without those that have labels.

    Args:
        name: name of the data set.
        train: images of `DATASETS.TRAIN`.

    Raises:
        ValueError: none is left.
    """
    records = DatasetCatalog.get(name)
    labeled = {os.path.realpath(x["file_name"]) for x in train}
    kept = [x for x in records if os.path.realpath(x["file_name"]) not in labeled]
    if not kept:
        raise ValueError(
            f"DATASETS.UNLABELED must have an image that is not in DATASETS.TRAIN; got '{name}' "
            f"with {len(records)} images and none left"
        )
    if len(kept) < len(records):
        logger.info(
            "%d of the %d images of '%s' are in DATASETS.TRAIN too and keep the labels from there",
            len(records) - len(kept), len(records), name,
        )  # fmt: skip
    return kept


def calibration_records(
    cfg: CfgNode, settings: LabelSettings, teacher: DetectingTeacher, train: Sequence[Record]
) -> Sequence[Record]:
    """The labelled images on which the scores are found; none where they are given.

    Args:
        cfg: config of the student.
        settings: settings of the labels.
        teacher: the teacher.
        train: images of `DATASETS.TRAIN`.

    Raises:
        ValueError: a data set has other classes than the student's.
    """
    if settings.score is not None:
        return []
    names = settings.calibration
    if not settings.calibration:
        logger.info(
            "%s.CALIBRATION names no labelled images that the teacher has not seen, so the scores "
            "are found on DATASETS.TRAIN; of images that it has learned by heart a teacher is too "
            "sure", KEY,
        )  # fmt: skip
        return train
    records = read_records(names)
    if seen := [name for name in names if name in teacher.trained_on]:
        logger.warning(
            "The teacher was trained on %s, which %s.CALIBRATION names; of images that it has "
            "learned by heart it is too sure", ", ".join(seen), KEY,
        )  # fmt: skip
    expected = student_classes(cfg).names
    for name in names:
        found = MetadataCatalog.get(name).get("thing_classes")
        if found is not None and list(found) != list(expected):
            raise ValueError(
                f"{KEY}.CALIBRATION must name data sets with the classes of DATASETS.TRAIN, "
                f"{', '.join(expected[:5])}; got '{name}' with {', '.join(found[:5])}"
            )
    return records


def student_classes(cfg: CfgNode) -> StudentClasses:
    """The classes of `DATASETS.TRAIN`, which was read, and what the student trains of an object.

    Raises:
        ValueError: the classes are not known.
    """
    name = cfg.DATASETS.TRAIN[0]
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS if cfg.MODEL.KEYPOINT_ON else 0
    names, ids = known_classes(name)
    return StudentClasses(names, ids, masks=cfg.MODEL.MASK_ON, keypoints=keypoints)


def known_classes(name: str) -> tuple[list[str], list[int]]:
    """The names of a data set's classes, and ascending category ids for a file of these.

    The ids are the data set's own where they ascend with the classes, and else count from 1.

    Args:
        name: name of a data set that was read.

    Raises:
        ValueError: the classes are not known.
    """
    metadata = MetadataCatalog.get(name)
    if (names := metadata.get("thing_classes")) is None:
        raise ValueError(
            f"DATASETS.TRAIN must name data sets whose classes are known; got '{name}'; set "
            f"thing_classes of its metadata"
        )
    places = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    ids = sorted(places, key=places.__getitem__)
    is_kept = ids == sorted(ids) and [places[x] for x in ids] == list(range(len(names)))
    # A COCO file's classes are in the order of their ids.
    return list(names), ids if is_kept else list(range(1, len(names) + 1))
