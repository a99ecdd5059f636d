"""Data that is there twice: files under two names, images that are trained and tested."""

import filecmp
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any

from detectron2.data import MetadataCatalog

__all__ = ["describe_shared_images", "refuse_twins"]

Records = Sequence[dict[str, Any]]


def refuse_twins(key: str, names: Sequence[str]) -> None:
    """Check that a key names nothing twice, and no annotation file, or equal ones, by two names.

    Args:
        key: config key that has the names.
        names: names of data sets whose files exist, as the key has them.

    Raises:
        ValueError: something is there twice.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{key} must name a data set once; got '{twice[0]}' twice; leave one out")
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


def describe_shared_images(
    train: Mapping[str, Records],
    test: Mapping[str, Records],
    others: Mapping[str, Mapping[str, Records]],
) -> list[str]:
    """Say which images are there more than once.

    Args:
        train: records of the training sets, by name.
        test: records of the test sets, by name.
        others: records of further sets that must have nothing of the test sets, by what is done
            with them, such as "trained on without labels".

    Returns:
        A line for each pair of a test set and another set that share images or have equal
        annotation files, for each pair of sets of one use that do, and for each set that has an
        image twice.
    """
    uses = {"trained": train, **others}
    files = {name: _files(x) for of_use in (*uses.values(), test) for name, x in of_use.items()}
    lines = []
    for name in files:
        counts = Counter(files[name])
        if twice := [file for file, count in counts.items() if count > 1]:
            lines.append(f"'{name}' has {len(twice)} image files more than once: '{twice[0]}'")
    for use, of_use in uses.items():
        for one, other in product(of_use, test):
            lines += _describe_pair(one, other, files, f"{use} and tested on")
        for one, other in combinations(of_use, 2):
            lines += _describe_pair(one, other, files, f"{use} in two sets")
    return lines


def _describe_pair(
    one: str, other: str, files: Mapping[str, Sequence[str]], what: str
) -> list[str]:
    if one == other:
        return [f"'{one}' is {what}: its scores say nothing of new images"]
    if shared := set(files[one]) & set(files[other]):
        return [
            f"{len(shared)} images of '{one}' and '{other}' are the same, {what}: '{min(shared)}'"
        ]
    one_file, other_file = (MetadataCatalog.get(name).get("json_file") for name in (one, other))
    if one_file and other_file and _are_equal(one_file, other_file):
        return [
            f"'{one}' and '{other}' have equal annotation files, '{one_file}' and '{other_file}', "
            f"and other folders of images; where these are copies, they are {what}"
        ]
    return []


def _files(records: Records) -> list[str]:
    """Paths of image files, the same for the same file under links."""
    folders: dict[str, str] = {}
    files = []
    for record in records:
        if file := record.get("file_name"):
            folder, name = os.path.split(file)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            path = os.path.join(folders[folder], name)
            files.append(os.path.realpath(path) if os.path.islink(path) else path)
    return files


def _image_root(name: str) -> str:
    return os.path.realpath(MetadataCatalog.get(name).get("image_root") or "")


def _are_equal(one: str, other: str) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
