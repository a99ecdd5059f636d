"""Names for COCO-format data in Detectron2's catalogs, and the check that one can be evaluated."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from reprlib import repr as short
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from reviewkd_det.d2.compat import builtin_coco_names, registered_coco_names, use_for_panoptic
from reviewkd_det.d2.data.coco_checks import are_finite, read_coco_file
from reviewkd_det.d2.data.coco_format import convert_segmentation, load_coco_format
from reviewkd_det.d2.data.views import show_own

_registered: dict[str, tuple[str, str]] = {}  # name: (json file, image root)


def register_coco_format(
    name: str,
    json_file: str,
    image_root: str,
    *,
    needs_annotations: bool = True,
    needs_masks: bool = True,
) -> None:
    """Make a COCO-format file known to Detectron2 under a new name; it is read on first use.

    Registering a name again with the same paths changes what it needs, and nothing else.

    Args:
        name: The name for `DATASETS.TRAIN` and `DATASETS.TEST`.
        json_file: Path of the annotation file.
        image_root: Folder that the `file_name` of each image is relative to.
        needs_annotations: Whether the file must have labels; see `load_coco_format`.
        needs_masks: Whether a malformed segmentation is refused; otherwise it is dropped.

    Raises:
        ValueError: If the name is taken, by other paths or by Detectron2 itself.
    """
    paths = (os.fspath(json_file), os.fspath(image_root))
    load = partial(
        load_coco_format,
        *paths,
        name,
        needs_annotations=needs_annotations,
        needs_masks=needs_masks,
    )
    if name in DatasetCatalog:
        if name not in _registered:
            raise ValueError(
                f"dataset name must be new; got {name!r}, which Detectron2 has already; "
                "choose another name"
            )
        if _registered[name] != paths:
            raise ValueError(
                f"dataset {name!r} must keep its JSON file and image folder {_registered[name]}; "
                f"got {paths}; choose another name"
            )
        show_own(name)
        DatasetCatalog[name] = load
        return
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(json_file=paths[0], image_root=paths[1], evaluator_type="coco")
    _registered[name] = paths


def allow_malformed_masks(names: Iterable[str]) -> None:
    """Let data sets of `register_coco_format` be read without the masks that nobody trains."""
    for name in names:
        if name in _registered:
            show_own(name)
            DatasetCatalog[name] = partial(DatasetCatalog[name], needs_masks=False)


def use_for_builtin_coco() -> None:
    """Load Detectron2's COCO names with `load_coco_format`, keeping paths and metadata.

    Those are the built-in ones, the objects of the COCO panoptic ones, and what a user registered
    with `register_coco_instances`. Calling this again changes nothing.
    """
    use_for_panoptic(load_coco_format)
    for name in builtin_coco_names():
        show_own(name)
        DatasetCatalog[name] = partial(_load_builtin, name)
    for name in registered_coco_names():
        data = MetadataCatalog.get(name)
        DatasetCatalog[name] = partial(load_coco_format, data.json_file, data.image_root, name)


def _load_builtin(name: str) -> list[dict]:
    metadata = MetadataCatalog.get(name)
    has_annotations = "_test" not in name  # COCO keeps those of the test splits to itself
    try:
        return load_coco_format(
            metadata.json_file, metadata.image_root, name, needs_annotations=has_annotations
        )
    except FileNotFoundError as error:
        root = os.getenv("DETECTRON2_DATASETS", "datasets")
        raise FileNotFoundError(
            f"{error}; set DETECTRON2_DATASETS, now {root!r}, to the folder that holds 'coco'"
        ) from error


@contextmanager
def finding_data(dataset_names: Sequence[str]) -> Iterator[None]:
    """Say of a file that is missing where Detectron2's own data sets are looked for.

    Raises:
        FileNotFoundError: instead of the system's own.
    """
    try:
        yield
    except FileNotFoundError as error:
        if error.errno is None:  # a sentence already
            raise
        root = os.getenv("DETECTRON2_DATASETS", "datasets")
        raise FileNotFoundError(
            f"files of data set {' or '.join(map(repr, dataset_names))} must exist; got none at "
            f"{error.filename!r}; Detectron2's own are below DETECTRON2_DATASETS, now {root!r}"
        ) from error


def check_evaluable(dataset_name: str, *, with_masks: bool = False) -> None:
    """Load a data set and make sure that COCO's evaluation can run on it, before hours of training.

    The evaluation reads the JSON file itself and needs more than training does: 'area' and
    'iscrowd' of every object, 'segmentation' for masks, and annotation ids of 1 or more
    (pycocotools takes id 0 for "no match", so that object would count as missed). Data sets of
    other evaluators are only loaded.

    Args:
        dataset_name: A name of `DATASETS.TEST`.
        with_masks: Whether masks are evaluated too.

    Raises:
        ValueError: If an object lacks one of these.
        FileNotFoundError: If a file is missing.
    """
    with finding_data([dataset_name]):
        records = DatasetCatalog.get(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("evaluator_type") != "coco":
        return
    if metadata.get("json_file") is None:  # the evaluation makes one of the records
        if any("image_id" not in record for record in records):
            raise ValueError(
                f"every image of '{dataset_name}' must have an image_id for COCO evaluation; got "
                "one without"
            )
        return
    content = read_coco_file(metadata.json_file, needs_annotations=False)
    for annotation in content["annotations"]:
        lack = _lack_for_evaluation(annotation, with_masks)
        if lack:
            key, rule, fix = lack
            got = short(annotation[key]) if key in annotation else "no such key"
            raise ValueError(
                f"{key!r} of annotation {annotation['id']} in {metadata.json_file!r} must be "
                f"{rule} for COCO evaluation; got {got}; {fix}"
            )


def _lack_for_evaluation(annotation: dict, with_masks: bool) -> tuple[str, str, str] | None:
    if not are_finite([annotation.get("area")]):
        return "area", "a finite number", "write the area of the mask, or of the box without one"
    if "iscrowd" not in annotation:
        return "iscrowd", "0 or 1", "write 0 for a single object"
    if with_masks and not _is_mask(annotation.get("segmentation")):
        return "segmentation", "a mask", "add it, or set MODEL.MASK_ON to False"
    if annotation["id"] < 1:
        return "id", "1 or more", "number the annotations from 1"
    return None


def _is_mask(segmentation: Any) -> bool:
    """Whether pycocotools reads it as a mask; four numbers are a box to it, not a polygon."""
    if not segmentation:
        return False
    if isinstance(segmentation, list):
        return len(convert_segmentation(segmentation)) == len(segmentation)
    return True
