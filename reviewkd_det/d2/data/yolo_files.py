"""What a YOLO data.yaml names: classes, and the images of a split with their label files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from reviewkd_det.common import listed
from reviewkd_det.common.data.folders import files_below, image_endings

__all__ = ["KEY", "class_names", "image_files", "label_file", "read_data_yaml"]

KEY = "DATASETS.YOLO_FORMAT"


def read_data_yaml(path: Path) -> dict[str, Any]:
    """Read a data.yaml as plain data.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not YAML, or not a mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"data.yaml of {KEY} must exist; got '{path}'")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"'{path}' must be plain YAML; got {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' must be a YAML mapping; got a {type(content).__name__}")
    return content


def class_names(content: dict[str, Any], path: Path) -> list[str]:
    """The names of the classes, which `names` lists or counts from 0.

    Raises:
        ValueError: there is none, one is there twice, or their number is not `nc`.
    """
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            found = listed([str(key) for key in names])
            raise ValueError(f"'names' of '{path}' must count its classes from 0; got {found}")
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names:
        raise ValueError(f"'names' of '{path}' must list the classes; got {names!r}")
    names = [str(name) for name in names]
    if twice := sorted({name for name in names if names.count(name) > 1 or not name}):
        raise ValueError(
            f"'names' of '{path}' must name each class once; got {listed(twice)} again"
        )
    if content.get("nc", len(names)) != len(names):
        raise ValueError(
            f"'nc' of '{path}' must be the number of its names, {len(names)}; got {content['nc']}"
        )
    return names


def image_files(content: dict[str, Any], path: Path, split: str) -> list[Path]:
    """The images of a split, which is a folder, a list of paths, or several of them.

    Raises:
        FileNotFoundError: a folder, a list or an image is missing.
        KeyError: there is no such split.
        ValueError: it has no image.
    """
    if not (named := content.get(split)):
        splits = [key for key in ("train", "val", "valid", "test", "minival") if content.get(key)]
        raise KeyError(
            f"split of {KEY} must be in '{path}'; got '{split}'; it has {listed(splits) or 'none'}"
        )
    root = _root(content, path)
    places = named if isinstance(named, list) else [named]
    found = [image for place in places for image in _images_at(str(place), root, path, split)]
    if not found:
        where = listed([str(place) for place in places])
        raise ValueError(f"split '{split}' of '{path}' must have an image; got none in {where}")
    return list(dict.fromkeys(found))


def label_file(image: Path) -> Path:
    """Where the labels of an image are: in `labels` where it is in `images`, or beside it."""
    beside = image.with_suffix(".txt")
    parts = list(image.absolute().parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            replaced = Path(*parts).with_suffix(".txt")
            return beside if beside.is_file() and not replaced.is_file() else replaced
    return beside


def _root(content: dict[str, Any], path: Path) -> Path:
    """The folder that a split is relative to: `path`, relative to the file or where we are."""
    named = Path(str(content.get("path") or "."))
    candidates = [path.parent / named, named]
    return next((place for place in candidates if place.is_dir()), candidates[0])


def _images_at(named: str, root: Path, path: Path, split: str) -> list[Path]:
    # Some exports write ../train/images for the folder beside the file itself.
    shortened = named.removeprefix("../")
    place = _first([root / named, root / shortened, path.parent / named, Path(named)])
    if place is None:
        raise FileNotFoundError(
            f"'{split}' of '{path}' must be a folder or a list of images; got '{named}', and "
            f"nothing at '{root / named}'"
        )
    if place.is_dir():
        return files_below(place, image_endings())
    lines = [line.strip() for line in place.read_text(encoding="utf-8-sig").splitlines()]
    found = []
    for line in filter(None, lines):
        image = _first([place.parent / line, root / line, Path(line)])
        if image is None:
            raise FileNotFoundError(
                f"every image of '{place}' must be a file; got none at '{line}', also relative to "
                f"'{place.parent}' and '{root}'"
            )
        found.append(image)
    return found


def _first(candidates: Iterable[Path]) -> Path | None:
    return next((path for path in candidates if path.exists()), None)
