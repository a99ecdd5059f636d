"""A run's data, looked at as a whole before anything is built."""

import logging
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from reviewkd_det.d2.data.box_format import describe_odd_boxes
from reviewkd_det.d2.data.class_lists import settle_classes
from reviewkd_det.d2.data.data_use import DataUse
from reviewkd_det.d2.data.first_use import cache_files, find_bad_images, find_bad_objects
from reviewkd_det.d2.data.image_folder import is_image_folder
from reviewkd_det.d2.data.overlaps import describe_shared_images, refuse_twins
from reviewkd_det.d2.data.register import finding_data
from reviewkd_det.d2.data.views import hold, show_own

__all__ = ["prepare_data"]

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
    names = list(dict.fromkeys([*use.train, *use.test, *use.unlabeled]))
    for name in names:
        show_own(name)
    _refuse_folders(use)
    records = {}
    for name in names:
        with finding_data([name]):
            records[name] = DatasetCatalog.get(name)
    train = {name: records[name] for name in use.train}
    test = {name: records[name] for name in use.test}
    refuse_twins(use.keys.train, list(train))
    refuse_twins(use.keys.test, list(test))
    _refuse_no_objects(use, train)
    for name, of_set in {**train, **test}.items():
        if odd := describe_odd_boxes(of_set):
            _warn("'%s' should have boxes [x, y, width, height] in pixels: %s", name, odd)
    for line in describe_shared_images(train, test):
        _warn("%s", line)
    caches = {name: cache_files(use, name) for name in names}
    for name in names:
        hold(name, records[name])
    classes = settle_classes(use, {**train, **test})
    problems = [*find_bad_objects(use, train), *find_bad_images(use, records, caches)]
    if problems:
        raise ValueError("; and ".join(problems))
    return classes


def _refuse_folders(use: DataUse) -> None:
    for key, names in ((use.keys.train, use.train), (use.keys.test, use.test)):
        for name in names:
            if is_image_folder(name):
                raise ValueError(
                    f"{key} must name data sets with labels; got '{name}', a folder of images; "
                    f"name it in {use.keys.unlabeled}, or give its labels as a COCO-format file"
                )


def _refuse_no_objects(use: DataUse, train: dict[str, Records]) -> None:
    every = [record for of_set in train.values() for record in of_set]
    if every and not any(x.get("annotations") or any(map(x.get, LABELS)) for x in every):
        files = [MetadataCatalog.get(name).get("json_file") or f"'{name}'" for name in train]
        raise ValueError(
            f"{use.keys.train} must have labelled objects; got {', '.join(map(repr, files))} with "
            f"{len(every)} images and no object; images alone belong in {use.keys.unlabeled}"
        )


def _warn(line: str, *values: str) -> None:
    if comm.is_main_process():
        logger.warning(line, *values)
