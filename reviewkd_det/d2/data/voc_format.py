"""Folders of XML files as Pascal VOC has them, with classes of any names.

Boxes are those of VOC: the first pixel is 1, and the last one belongs to the object. A difficult
object becomes a crowd: it is not trained on, and what is found in it is neither right nor wrong.
"""

import logging
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from reviewkd_det.common import listed
from reviewkd_det.d2.data.converted import coco_content, image_entry, register_converted
from reviewkd_det.d2.data.voc_files import KEY, VOCImage, all_xml, images_of_split

__all__ = ["read_voc_format", "register_voc_format", "voc_classes"]

logger = logging.getLogger(__name__)

CLASS_FILES = ("classes.txt", "labels.txt")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def register_voc_format(
    name: str, folder: str, split: str, *, output_dir: str, needs_annotations: bool = True
) -> None:
    """Make a split of a VOC-style folder known to Detectron2; it is read on first use.

    Args:
        name: name for `DATASETS.TRAIN` and `DATASETS.TEST`.
        folder: folder with Annotations, JPEGImages and ImageSets, or with a folder of XML files and
            images for each split.
        split: name of a list in `ImageSets/Main`, or of such a folder.
        output_dir: folder of the run, which keeps the data in COCO's format.
        needs_annotations: whether every image must have an XML file.

    Raises:
        ValueError: the name is taken.
    """
    convert = partial(read_voc_format, folder, split, needs_annotations=needs_annotations)
    source = (KEY, folder, split)
    register_converted(name, source, convert, output_dir, needs_annotations=needs_annotations)


def read_voc_format(folder: str, split: str, *, needs_annotations: bool = True) -> dict[str, Any]:
    """Read a split as the content of a COCO-format file; of unlabelled data the images alone.

    The classes are those of `classes.txt` or `labels.txt` in the folder, in their order, or else
    those of all XML files below it, sorted; so all splits of a folder have the same.

    Raises:
        FileNotFoundError: the folder, the split, an XML file or an image is missing.
        ValueError: an XML file cannot be read, or has an object that is not one of VOC.
    """
    root = Path(folder)
    files = images_of_split(root, split, needs_annotations=needs_annotations)
    if not needs_annotations:
        return coco_content([(image_entry(entry.image), []) for entry in files], [])
    trees = {path: _parse(path) for path in all_xml(root)}
    classes = _classes(root, trees, needs_annotations=True)
    images = [_read(entry, trees, classes) for entry in files]
    objects = [entry for _, entries in images for entry in entries]
    logger.info(
        "%s, split %s: %d images, %d objects, of which %d are difficult and become crowds; %d "
        "classes: %s",
        folder,
        split,
        len(images),
        len(objects),
        sum(entry["iscrowd"] for entry in objects),
        len(classes),
        listed(classes, 20),
    )
    if outside := sum(min(entry["bbox"][:2]) < 0 for entry in objects):
        logger.warning(
            "%d of %d boxes of %s, split %s, begin at 0, where the first pixel of VOC is 1; if "
            "this data counts from 0, all its boxes are read a pixel off",
            outside,
            len(objects),
            folder,
            split,
        )
    return coco_content(images, classes)


def voc_classes(folder: str) -> list[str]:
    """The class names of a VOC-style folder, in the order of their numbers.

    Raises:
        ValueError: an XML file cannot be read, or has a class that the folder's list has not.
    """
    root = Path(folder)
    trees = {path: _parse(path) for path in all_xml(root)}
    return _classes(root, trees, needs_annotations=False)


def _parse(path: Path) -> ElementTree.Element:
    """The root of an XML file; ElementTree reads no other files, and entities are refused."""
    content = path.read_bytes()
    if b"<!ENTITY" in content:
        raise ValueError(f"XML file must not declare entities; got '{path}', which does")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"XML file must be readable; got '{path}': {error}") from error
    for number, entry in enumerate(root.iter("object"), start=1):
        if not (entry.findtext("name") or "").strip():
            raise ValueError(f"every object of '{path}' must have a name; got none for {number}")
    return root


def _classes(
    root: Path, trees: dict[Path, ElementTree.Element], *, needs_annotations: bool
) -> list[str]:
    used = {_name(entry): path for path, tree in trees.items() for entry in tree.iter("object")}
    for listing in (root / name for name in CLASS_FILES):
        if not listing.is_file():
            continue
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
        if len(set(classes)) != len(classes) or not classes:
            raise ValueError(f"'{listing}' must name classes, each once; got {listed(classes, 20)}")
        if unknown := sorted(used.keys() - set(classes)):
            raise ValueError(
                f"class of every object must be in '{listing}'; got {unknown[0]!r} in "
                f"'{used[unknown[0]]}'; it has {listed(classes, 20)}"
            )
        return classes
    if not used and needs_annotations:
        raise ValueError(
            f"XML files of '{root}' must have an object, or '{CLASS_FILES[0]}' there name the "
            f"classes; got none in {len(trees)} files"
        )
    return sorted(used)


def _read(
    entry: VOCImage, trees: dict[Path, ElementTree.Element], classes: list[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The image and its objects, as `coco_content` takes them."""
    objects: list[dict[str, Any]] = []
    size = (0.0, 0.0)
    if entry.xml is not None:
        tree = trees[entry.xml]
        size = (_number(tree.findtext("size/width")), _number(tree.findtext("size/height")))
        objects = [
            _object(found, number, entry.xml, classes)
            for number, found in enumerate(tree.iter("object"), start=1)
        ]
    if all(side >= 1 and side.is_integer() for side in size):
        width, height = map(int, size)
        return {"file_name": str(entry.image), "height": height, "width": width}, objects
    return image_entry(entry.image), objects  # some programs write 0, or nothing


def _object(
    entry: ElementTree.Element, number: int, path: Path, classes: list[str]
) -> dict[str, Any]:
    texts = [entry.findtext(f"bndbox/{corner}") for corner in CORNERS]
    left, top, right, bottom = corners = [_number(text) for text in texts]
    if not all(map(isfinite, corners)) or left > right or top > bottom:
        got = ", ".join(f"{key} {text}" for key, text in zip(CORNERS, texts, strict=True))
        raise ValueError(
            f"bndbox of object {number} of '{path}' must have xmin <= xmax and ymin <= ymax; got "
            f"{got}"
        )
    return {
        "bbox": [left - 1, top - 1, right - left + 1, bottom - top + 1],
        "category_id": classes.index(_name(entry)),
        "iscrowd": int((entry.findtext("difficult") or "0").strip().lower() in ("1", "true")),
    }


def _name(entry: ElementTree.Element) -> str:
    return (entry.findtext("name") or "").strip()


def _number(text: str | None) -> float:
    """A number, NaN where there is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
