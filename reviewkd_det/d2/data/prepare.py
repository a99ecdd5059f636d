"""A run's data, looked at as a whole before anything is built."""

import logging
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from reviewkd_det.d2.data.box_format import describe_odd_boxes, describe_odd_masks
from reviewkd_det.d2.data.class_lists import settle_classes
from reviewkd_det.d2.data.data_use import DataUse
from reviewkd_det.d2.data.first_use import cache_files, find_bad_images, find_bad_objects
from reviewkd_det.d2.data.image_folder import is_image_folder
from reviewkd_det.d2.data.overlaps import describe_shared_images, refuse_twins
from reviewkd_det.d2.data.register import finding_data
from reviewkd_det.d2.data.views import hold, show_own

__all__ = ["prepare_data", "refuse_folders"]

logger = logging.getLogger(__name__)
Records = list[dict[str, Any]]
LABELS = ("sem_seg_file_name", "pan_seg_file_name")


def prepare_data(use: DataUse) -> list[str] | None:
    """Load a run's data sets, check them, and settle on one list of classes.

    What is odd and may be meant is logged as a warning. The records wait for the loaders.

    Args:
        use: how the run uses its data; the names are known to Detectron2.

    Returns:
        The class names in the order of the model's class numbers; None where none are known.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: names, classes, images or objects cannot be used.
    """
    names = list(dict.fromkeys([*use.train, *use.test, *use.calibration, *use.unlabeled]))
    for name in names:
        show_own(name)
    refuse_folders(use)
    records = {}
    for name in names:
        with finding_data([name]):
            records[name] = DatasetCatalog.get(name)
    train, test, calibration = (
        {name: records[name] for name in part} for part in (use.train, use.test, use.calibration)
    )
    refuse_twins(use.keys.train, use.train)
    refuse_twins(use.keys.test, use.test)
    refuse_twins(use.keys.unlabeled, use.unlabeled)
    judging = f"{use.keys.test} and {use.keys.calibration}"
    refuse_twins(judging, [*use.test, *use.calibration])
    _refuse_no_objects(use.keys.train, use, train)
    _refuse_no_objects(use.keys.calibration, use, calibration)
    labeled = {**train, **test, **calibration}
    _warn_of_odd(use, labeled, test)
    unlabeled = {name: records[name] for name in use.unlabeled}
    others = {"trained on without labels": unlabeled, "used to find scores": calibration}
    for line in describe_shared_images(train, test, others):
        _warn("%s", line)
    caches = {name: cache_files(use, name) for name in names}
    for name in names:
        hold(name, records[name])
    classes = settle_classes(use, labeled)
    problems = [*find_bad_objects(use, train), *find_bad_images(use, records, caches)]
    if problems:
        raise ValueError("; and ".join(problems))
    return classes


def refuse_folders(use: DataUse) -> None:
    """Check that folders of images are named only where no labels are needed.

    Raises:
        ValueError: one is named where data is trained, tested or calibrated on.
    """
    keys = use.keys
    named = {keys.train: use.train, keys.test: use.test, keys.calibration: use.calibration}
    for key, names in named.items():
        for name in names:
            if is_image_folder(name):
                raise ValueError(
                    f"{key} must name data sets with labels; got '{name}', a folder of images; "
                    f"name it in {keys.unlabeled}, or give its labels as a COCO-format file"
                )


def _warn_of_odd(use: DataUse, labeled: dict[str, Records], test: dict[str, Records]) -> None:
    """Warn of boxes of another format, masks of another scale, and tests without any object."""
    for name, of_set in labeled.items():
        if odd := describe_odd_boxes(of_set):
            _warn("'%s' should have boxes [x, y, width, height] in pixels: %s", name, odd)
        elif use.masks and (odd := describe_odd_masks(of_set)):
            _warn("Masks of '%s' should lie in their boxes: %s", name, odd)
    for name, of_set in test.items():
        if of_set and not _have_objects(of_set):
            _warn(
                "'%s' has %d images and no object to find, so its results will not be numbers",
                name,
                len(of_set),
            )


def _refuse_no_objects(key: str, use: DataUse, sets: dict[str, Records]) -> None:
    every = [record for of_set in sets.values() for record in of_set]
    if every and not _have_objects(every):
        files = [MetadataCatalog.get(name).get("json_file") or f"'{name}'" for name in sets]
        crowds = sum(len(record.get("annotations", ())) for record in every)
        beside = f" but {crowds} crowds" if crowds else ""
        raise ValueError(
            f"{key} must have labelled objects; got {', '.join(map(repr, files))} with "
            f"{len(every)} images and no object{beside}; images alone belong in "
            f"{use.keys.unlabeled}"
        )


def _have_objects(records: Records) -> bool:
    """Whether there is an object, other than crowds, or a picture of labels."""
    return any(
        any(map(record.get, LABELS))
        or any(not x.get("iscrowd", 0) for x in record.get("annotations", ()))
        for record in records
    )


def _warn(line: str, *values: object) -> None:
    if comm.is_main_process():
        logger.warning(line, *values)
