"""Detection data in COCO's JSON format, checked while it is read.

For valid files the result is that of Detectron2's own `load_coco_json`: image dictionaries sorted
by image id, with boxes as [x, y, width, height] in pixels and categories counted from 0.
"""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import pycocotools.mask as mask_util
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from reviewkd_det.d2.data.coco_checks import (
    check_annotation,
    check_category,
    check_entries,
    check_image,
    check_links,
    check_segmentation,
    read_coco_file,
)
from reviewkd_det.d2.data.keypoints import set_keypoints

logger = logging.getLogger(__name__)

_KEPT_KEYS = ("iscrowd", "bbox", "keypoints", "category_id")
_BORDER_TOLERANCE_PX = 0.01  # COCO rounds coordinates to hundredths


def load_coco_format(
    json_file: str,
    image_root: str,
    dataset_name: str,
    *,
    needs_annotations: bool = True,
    needs_masks: bool = True,
    more_keys: Sequence[str] = (),
) -> list[dict]:
    """Read a COCO-format file into Detectron2's list of image dictionaries.

    Category ids are mapped, in ascending order, to 0, 1, ...; the map and the class names are
    written to the data set's metadata. An object whose polygons all have fewer than 3 points keeps
    its box and loses its segmentation; one with "ignore": 1 becomes a crowd. Boxes without area or
    over the image border are kept, because Detectron2's mapper clips and filters them.

    Args:
        json_file: Path of the annotation file.
        image_root: Folder that the `file_name` of each image is relative to.
        dataset_name: Name whose metadata is filled in.
        needs_annotations: Whether a file without "annotations" and "categories" is refused;
            otherwise its objects are not read.
        needs_masks: Whether a malformed segmentation is refused; otherwise it is dropped.
        more_keys: Further keys of an object that are kept as they are.

    Returns:
        One dictionary per image, with or without objects, sorted by image id.

    Raises:
        FileNotFoundError: If the annotation file or an image file is missing.
        ValueError: If the file breaks a rule of the format; the sentence names the entry and value.
    """
    content = read_coco_file(json_file, needs_annotations=needs_annotations)
    images = _images_by_id(content["images"], json_file)
    category_ids: dict[int, int] = {}
    if content["categories"] or needs_annotations:
        category_ids = _set_classes(content["categories"], json_file, dataset_name)
    labels = content["annotations"] if needs_annotations else []
    objects = _objects_by_image(labels, images, category_ids, json_file)
    counts: Counter[str] = Counter()
    for image_id, annotations in objects.items():
        for annotation in annotations:
            _check_mask(annotation, images[image_id], json_file, counts, needs_masks)
    records = [
        {
            "file_name": os.path.join(image_root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image_id,
            "annotations": _convert_objects(
                objects[image_id], image, category_ids, counts, (*_KEPT_KEYS, *more_keys)
            ),
        }
        for image_id, image in images.items()
    ]
    _check_image_files([record["file_name"] for record in records], json_file)
    _log_counts(json_file, len(records), counts)
    return records


def _images_by_id(images: list, json_file: str) -> dict[int, dict]:
    check_entries("images", images, json_file)
    if not images:
        raise ValueError(f"section 'images' of {json_file!r} must have an entry; got none")
    for image in images:
        check_image(image, json_file)
    return {image["id"]: image for image in sorted(images, key=lambda image: image["id"])}


def _set_classes(categories: list, json_file: str, dataset_name: str) -> dict[int, int]:
    check_entries("categories", categories, json_file)
    if not categories:
        raise ValueError(f"section 'categories' of {json_file!r} must have an entry; got none")
    for category in categories:
        check_category(category, json_file)
    categories = sorted(categories, key=lambda category: category["id"])
    names = [category["name"] for category in categories]
    category_ids = {category["id"]: index for index, category in enumerate(categories)}
    _set_metadata(dataset_name, "thing_classes", names, json_file)
    _set_metadata(dataset_name, "thing_dataset_id_to_contiguous_id", category_ids, json_file)
    set_keypoints(dataset_name, categories)
    return category_ids


def _set_metadata(dataset_name: str, key: str, value: Any, json_file: str) -> None:
    metadata = MetadataCatalog.get(dataset_name)
    known = metadata.get(key, value)
    if known != value:
        pairs = zip_longest(known, value)
        index, (expected, found) = next(
            (index, pair) for index, pair in enumerate(pairs) if pair[0] != pair[1]
        )
        raise ValueError(
            f"{key} of {json_file!r} must be those known for dataset {dataset_name!r}; got "
            f"{found!r} in place {index} instead of {expected!r}; register it under another name"
        )
    metadata.set(**{key: value})


def _objects_by_image(
    annotations: list, images: dict[int, dict], category_ids: dict[int, int], json_file: str
) -> dict[int, list[dict]]:
    # COCO 2014's "minival" files have a few annotation ids twice; Detectron2 lets them pass.
    check_entries("annotations", annotations, json_file, unique="minival" not in json_file)
    objects: dict[int, list[dict]] = defaultdict(list)
    for annotation in annotations:
        check_links(annotation, images, category_ids, json_file)
        check_annotation(annotation, images[annotation["image_id"]], json_file)
        objects[annotation["image_id"]].append(annotation)
    return objects


def _check_mask(
    annotation: dict, image: dict, json_file: str, counts: Counter[str], needed: bool
) -> None:
    try:
        check_segmentation(annotation, image, json_file)
    except ValueError:
        if needed:
            raise
        counts["dropped masks"] += 1
        annotation["segmentation"] = None


def _convert_objects(
    annotations: Iterable[dict],
    image: dict,
    category_ids: dict[int, int],
    counts: Counter[str],
    kept_keys: Sequence[str],
) -> list[dict]:
    converted = []
    for annotation in annotations:
        instance = {key: annotation[key] for key in kept_keys if key in annotation}
        if segmentation := annotation.get("segmentation"):
            if converted_mask := convert_segmentation(segmentation):
                instance["segmentation"] = converted_mask
            else:
                counts["dropped masks"] += 1
        if annotation.get("ignore", 0) and not annotation.get("iscrowd", 0):
            instance |= {"iscrowd": 1, "ignore": 1}  # as the evaluation's file does not say
            counts["ignored"] += 1
        if annotation.get("keypoints"):
            # COCO gives keypoints as pixel indices: pixel 0 has its centre at 0.5.
            instance["keypoints"] = [
                value if index % 3 == 2 else value + 0.5
                for index, value in enumerate(annotation["keypoints"])
            ]
        instance["bbox_mode"] = BoxMode.XYWH_ABS
        instance["category_id"] = category_ids[annotation["category_id"]]
        _count(instance, image, counts)
        converted.append(instance)
    return converted


def convert_segmentation(segmentation: Any) -> Any:
    """A checked segmentation as Detectron2 takes it; an empty list where nothing of it is left."""
    if isinstance(segmentation, list):
        return [polygon for polygon in segmentation if len(polygon) % 2 == 0 and len(polygon) >= 6]
    if isinstance(segmentation["counts"], list):
        return mask_util.frPyObjects(segmentation, *segmentation["size"])
    return segmentation


def _count(instance: dict, image: dict, counts: Counter[str]) -> None:
    x, y, width, height = instance["bbox"]
    counts["objects"] += 1
    counts["crowds"] += instance.get("iscrowd", 0)
    counts["without area"] += width == 0 or height == 0
    counts["over the border"] += (
        min(x, y) < -_BORDER_TOLERANCE_PX
        or x + width > image["width"] + _BORDER_TOLERANCE_PX
        or y + height > image["height"] + _BORDER_TOLERANCE_PX
    )


def _check_image_files(file_names: list[str], json_file: str) -> None:
    missing = [file_name for file_name in file_names if not os.path.isfile(file_name)]
    if missing:
        raise FileNotFoundError(
            f"every image of {json_file!r} must be a file; got {len(missing)} of {len(file_names)} "
            f"missing, the first is {missing[0]!r}"
        )


def _log_counts(json_file: str, images: int, counts: Counter[str]) -> None:
    changes = {
        'became crowds because of "ignore": 1': counts["ignored"],
        "kept their box without their segmentation, which has no polygon of 3 points or more or "
        "is malformed": counts["dropped masks"],
    }
    shown = [f"; {count} {what}" for what, count in changes.items() if count]
    logger.log(
        logging.WARNING if shown else logging.INFO,
        "%s: %d images, %d objects (%d crowds, %d boxes without area, %d over the border)%s",
        json_file,
        images,
        counts["objects"],
        counts["crowds"],
        counts["without area"],
        counts["over the border"],
        "".join(shown),
    )
