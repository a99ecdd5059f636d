"""A folder of labelled images: `<root>/train/<class>/*` and `<root>/val/<class>/*` (or `test`)."""

import os
from typing import NamedTuple

from torchvision.datasets.folder import IMG_EXTENSIONS

from reviewkd_det.common.data.folders import find_files

__all__ = ["ListedImages", "list_image_folder"]

_TRAIN = "train"
_TEST_CHOICES = ("val", "test")  # the first that exists; ImageNet's `test` has no labels
_NAMED_AT_MOST = 3


class ListedImages(NamedTuple):
    """Paths of image files and the position of each one's class."""

    paths: list[str]
    labels: list[int]


def list_image_folder(root: str) -> tuple[ListedImages, ListedImages, tuple[str, ...]]:
    """List the training and the test images below a folder; no image is opened.

    Classes are the sorted names of the folders; hidden files and folders are left out.

    Returns:
        The training images, the test images and the class names.

    Raises:
        FileNotFoundError: If a split's folder is missing.
        ValueError: If there is no class, the splits differ in their classes, or a class is empty.
    """
    train = os.path.join(root, _TRAIN)
    tests = [os.path.join(root, name) for name in _TEST_CHOICES]
    test = next(filter(os.path.isdir, tests), None)
    if test is None or not os.path.isdir(train):
        raise FileNotFoundError(
            "DATA.ROOT must hold train/<class>/ and val/<class>/ or test/<class>/; got "
            f"{root!r}, which lacks {' and '.join(tests) if os.path.isdir(train) else train}"
        )
    class_names = _list_classes(train)
    _check_same_classes(train, class_names, test, _list_classes(test))
    return _list_images(train, class_names), _list_images(test, class_names), tuple(class_names)


def _list_classes(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if not names:
        raise ValueError(f"{folder!r} must hold a folder for each class; got none")
    return names


def _check_same_classes(train: str, in_train: list[str], test: str, in_test: list[str]) -> None:
    differences = [
        f"{_name_first(sorted(only))} only in {folder!r}"
        for folder, only in (
            (train, set(in_train) - set(in_test)),
            (test, set(in_test) - set(in_train)),
        )
        if only
    ]
    if differences:
        raise ValueError(f"both splits must have the same classes; got {' and '.join(differences)}")


def _list_images(folder: str, class_names: list[str]) -> ListedImages:
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(class_names):
        of_class = sorted(find_files(os.path.join(folder, name), _is_image), key=os.path.split)
        paths += of_class
        labels += [label] * len(of_class)
    if empty := sorted({*range(len(class_names))} - {*labels}):
        raise ValueError(
            f"every class folder of {folder!r} must hold an image; got none in "
            f"{_name_first([class_names[label] for label in empty])}; "
            f"endings are {' '.join(IMG_EXTENSIONS)}"
        )
    return ListedImages(paths, labels)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMG_EXTENSIONS)


def _name_first(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(map(repr, names[:_NAMED_AT_MOST])) + more
