"""What a COCO-format file must satisfy; a broken rule is one sentence with the value that broke it.

The checks run over every object of a file (860,000 in COCO train2017), so a sentence is put
together only when a rule is broken, and no check converts or copies what it reads.
"""

import json
from collections.abc import Iterable
from math import isfinite
from reprlib import repr as short
from typing import Any

from detectron2.utils.file_io import PathManager

# The keys Detectron2 and pycocotools read without asking, by section.
REQUIRED_KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}

_NUMBER_TYPES = frozenset((int, float))  # the exact types: bool is a subclass of int
_COMPRESSED_COUNTS = frozenset(map(chr, range(48, 112)))  # pycocotools stores 6 bits per character
_GREATEST_SIDE = 2**16 - 1  # pixels; an area then fits into pycocotools' counts of 32 bits
_CONTINUES = 0x20  # the bit that announces another character of the same run


def read_coco_file(json_file: str, *, needs_annotations: bool = True) -> dict[str, list]:
    """Read the three sections of a COCO-format file; all but 'images' may be optional.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not JSON, not an object, or a section is missing or not a list.
    """
    if not PathManager.isfile(json_file):
        raise FileNotFoundError(f"COCO-format file must exist; got {json_file!r}")
    try:
        with PathManager.open(json_file, "r", encoding="utf-8") as file:
            content = json.load(file)
    except json.JSONDecodeError as error:
        found = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise ValueError(f"{json_file!r} must be JSON; got {found}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{json_file!r} must be JSON in UTF-8; got {error}") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, a number of 4,301 digits
        raise ValueError(f"{json_file!r} must be JSON of usual sizes; got {error}") from error
    if type(content) is not dict:
        kind = type(content).__name__
        raise ValueError(f"top level of {json_file!r} must be an object; got a {kind}")
    if not needs_annotations:
        content.setdefault("annotations", [])
        content.setdefault("categories", [])
    for section in REQUIRED_KEYS:
        if section not in content:
            keys = ", ".join(content) or "no key"
            raise ValueError(f"{json_file!r} must have the section {section!r}; got {keys}")
        if type(content[section]) is not list:
            kind = type(content[section]).__name__
            raise ValueError(f"section {section!r} of {json_file!r} must be a list; got a {kind}")
    return content


def check_entries(section: str, entries: list, json_file: str, *, unique: bool = True) -> None:
    """Every entry is an object with the section's keys and an integer id that no other has."""
    seen: set[int] = set()
    for position, entry in enumerate(entries):
        where = f"entry {position} of section {section!r} of {json_file!r}"
        if type(entry) is not dict:
            raise ValueError(f"{where} must be an object; got {short(entry)}")
        for key in REQUIRED_KEYS[section]:
            if key not in entry:
                raise ValueError(f"{where} must have {key!r}; got {', '.join(entry) or 'no key'}")
        entry_id = entry["id"]
        if type(entry_id) is not int:
            raise ValueError(f"'id' of {where} must be an integer; got {short(entry_id)}")
        if unique and entry_id in seen:
            raise ValueError(f"'id' of {where} must be unique in its section; got {entry_id} again")
        seen.add(entry_id)


def check_image(image: dict, json_file: str) -> None:
    """A file name, and a height and width in pixels."""
    name = image["file_name"]
    if type(name) is not str or not name:
        where = _of("file_name", "image", image, json_file)
        raise ValueError(f"{where} must be a non-empty string; got {short(name)}")
    for key in ("height", "width"):
        if type(image[key]) is not int or not 0 < image[key] <= _GREATEST_SIDE:
            where = _of(key, "image", image, json_file)
            rule = f"a positive integer up to {_GREATEST_SIDE}"
            raise ValueError(f"{where} must be {rule}; got {short(image[key])}")


def check_category(category: dict, json_file: str) -> None:
    """A name to print."""
    name = category["name"]
    if type(name) is not str or not name:
        where = _of("name", "category", category, json_file)
        raise ValueError(f"{where} must be a non-empty string; got {short(name)}")


def check_links(annotation: dict, images: dict, categories: dict, json_file: str) -> None:
    """The annotation's image and category are in the file."""
    for key, known in (("image_id", images), ("category_id", categories)):
        value = annotation[key]
        if type(value) is not int or value not in known:
            where = _of(key, "annotation", annotation, json_file)
            raise ValueError(
                f"{where} must be the id of one of the {len(known)} {_PLURAL[key]} of the file; "
                f"got {short(value)}; the nearest are {_nearest(value, known)}"
            )


_PLURAL = {"image_id": "images", "category_id": "categories"}


def check_annotation(annotation: dict, image: dict, json_file: str) -> None:
    """The values of one object: box, flags, keypoints."""
    bbox = annotation["bbox"]
    if not are_finite(bbox) or len(bbox) != 4:
        _refuse("bbox", annotation, json_file, "4 finite numbers [x, y, width, height]")
    if bbox[2] < 0 or bbox[3] < 0:
        _refuse("bbox", annotation, json_file, "[x, y, width, height], the last two not negative")
    if annotation.get("iscrowd", 0) not in (0, 1):
        _refuse("iscrowd", annotation, json_file, "0 or 1")
    if annotation.get("ignore", 0) not in (0, 1):
        _refuse("ignore", annotation, json_file, "0 or 1")
    keypoints = annotation.get("keypoints")
    if keypoints and not (are_finite(keypoints) and len(keypoints) % 3 == 0):
        _refuse("keypoints", annotation, json_file, "finite numbers in triples (x, y, visibility)")


def check_segmentation(annotation: dict, image: dict, json_file: str) -> None:
    """The mask of one object, where it has one."""
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return
    if type(segmentation) is list:
        for polygon in segmentation:
            # pycocotools walks along every edge, so an endless one takes all memory.
            if not are_finite(polygon) or max(map(abs, polygon), default=0) > _GREATEST_SIDE:
                rule = f"a list of polygons, each a list of numbers up to {_GREATEST_SIDE}"
                _refuse("segmentation", annotation, json_file, rule, got=polygon)
        return
    if type(segmentation) is not dict or not {"size", "counts"} <= segmentation.keys():
        rule = "a list of polygons or an object with 'size' and 'counts'"
        _refuse("segmentation", annotation, json_file, rule)
    size = [image["height"], image["width"]]
    if segmentation["size"] != size or set(map(type, segmentation["size"])) != {int}:
        rule = f"of its image's size [height, width] = {size}"
        _refuse("segmentation", annotation, json_file, rule, got=segmentation["size"])
    counts = segmentation["counts"]
    if type(counts) is str:
        if not counts or not _COMPRESSED_COUNTS.issuperset(counts) or _is_cut(counts):
            rule = "run-length counts as pycocotools compresses them"
            _refuse("segmentation", annotation, json_file, rule, got=counts)
    elif not (are_finite(counts) and _are_run_lengths(counts, size[0] * size[1])):
        rule = f"run-length counts: integers of 0 or more that add up to {size[0] * size[1]}"
        _refuse("segmentation", annotation, json_file, rule, got=counts)


def are_finite(values: Any) -> bool:
    # A sum is finite if and only if no term is NaN or infinite, short of coordinates near 1e308.
    if type(values) is not list or not _NUMBER_TYPES.issuperset(map(type, values)):
        return False
    try:
        return isfinite(sum(values))
    except OverflowError:  # an integer of more than 308 digits
        return False


def _are_run_lengths(counts: list, pixels: int) -> bool:
    return set(map(type, counts)) == {int} and min(counts) >= 0 and sum(counts) == pixels


def _is_cut(counts: str) -> bool:
    return bool((ord(counts[-1]) - 48) & _CONTINUES)


def _nearest(value: Any, known: Iterable[int]) -> str:
    ids = sorted(known, key=lambda known_id: abs(known_id - value) if type(value) is int else 0)
    return ", ".join(map(str, ids[:5])) or "none, the section is empty"


def _of(key: str, kind: str, entry: dict, json_file: str) -> str:
    return f"{key!r} of {kind} {entry['id']} in {json_file!r}"


def _refuse(key: str, annotation: dict, json_file: str, rule: str, **got: Any) -> None:
    where = _of(key, "annotation", annotation, json_file)
    raise ValueError(f"{where} must be {rule}; got {short(got.get('got', annotation[key]))}")
