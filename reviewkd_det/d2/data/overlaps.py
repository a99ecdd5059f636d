"""The same data under two names: files that are there twice, images that are trained and tested."""

import filecmp
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from detectron2.data import MetadataCatalog

__all__ = ["describe_shared_images", "refuse_twins"]

Records = Sequence[dict[str, Any]]


def refuse_twins(key: str, names: Sequence[str]) -> None:
    """Check that no two names of a key are of the same annotation file, or of equal ones.

    Args:
        key: config key that has the names.
        names: names of data sets whose files exist.

    Raises:
        ValueError: two names have it.
    """
    files = {name: MetadataCatalog.get(name).get("json_file") for name in names}
    for (one, file), (other, other_file) in combinations(files.items(), 2):
        if not file or not other_file or _image_root(one) != _image_root(other):
            continue
        if os.path.realpath(file) == os.path.realpath(other_file) or _are_equal(file, other_file):
            twin = "" if file == other_file else f" (equal to '{other_file}')"
            raise ValueError(
                f"{key} must name a file once; got '{one}' and '{other}', which are both of "
                f"'{file}'{twin}; leave one out"
            )


def describe_shared_images(train: Mapping[str, Records], test: Mapping[str, Records]) -> list[str]:
    """Say which images are there more than once.

    Args:
        train: records of the training sets, by name.
        test: records of the test sets, by name.

    Returns:
        A line for each pair of a training and a test set that share images, for each pair of
        training sets that do, and for each set that has an image twice.
    """
    files = {name: _files(records) for name, records in {**train, **test}.items()}
    lines = []
    for name, own in files.items():
        counts = Counter(own)
        if twice := [file for file, count in counts.items() if count > 1]:
            lines.append(f"'{name}' has {len(twice)} image files more than once: '{twice[0]}'")
    pairs = [(one, other) for one in train for other in test]
    for one, other in [*pairs, *combinations(train, 2)]:
        shared = set(files[one]) & set(files[other])
        if one == other:
            lines.append(f"'{one}' is trained and tested on: its scores say nothing of new images")
        elif shared:
            what = "trained and tested on" if other in test else "in two training sets"
            lines.append(
                f"{len(shared)} images of '{one}' and '{other}' are the same, {what}: "
                f"'{min(shared)}'"
            )
    return lines


def _files(records: Records) -> list[str]:
    """Paths of image files, the same for the same file below linked folders."""
    folders: dict[str, str] = {}
    files = []
    for record in records:
        if file := record.get("file_name"):
            folder, name = os.path.split(file)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            files.append(os.path.join(folders[folder], name))
    return files


def _image_root(name: str) -> str:
    return os.path.realpath(MetadataCatalog.get(name).get("image_root") or "")


def _are_equal(one: str, other: str) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
