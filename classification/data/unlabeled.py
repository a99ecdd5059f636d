"""Images without labels, from which a student learns through its teacher alone.

Shapes: images kept in memory are (n, 3, H, W) uint8; the label of each is -1.
"""

import logging
import os
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from classification.data.sources import Source, Split
from classification.partly_labeled import UNLABELED
from reviewkd_det.common.data.folders import find_files

__all__ = ["REST", "add_unlabeled", "find_images", "identities"]

logger = logging.getLogger(__name__)
REST = "rest"  # names the training images that DATA.TRAIN_IMAGES leaves out
KEY = "DATA.UNLABELED"


def add_unlabeled(
    source: Source, rest: Split, paths: Sequence[str], root: str
) -> tuple[Split, int]:
    """Put images without labels behind the labelled training images of a source.

    Args:
        source: labelled images.
        rest: what DATA.TRAIN_IMAGES leaves out of them.
        paths: folders, image files and lists of them, or "rest" for what is left out.
        root: folder of the source, for a warning.

    Returns:
        The training images of both kinds, and how many of them have no label.

    Raises:
        FileNotFoundError: a path does not exist.
        ValueError: a path leads to no image, or "rest" and nothing is left out.
    """
    images: list[str | Tensor] = []
    if REST in paths:
        if not len(rest):
            raise ValueError(
                f"DATA.TRAIN_IMAGES must leave training images out for {KEY} '{REST}'; got all "
                f"{len(source.train)} of them in the training"
            )
        images += rest.images
    images += [file for path in paths if path != REST for file in find_images(path)]
    images = _each_once(images)
    _warn_of_known([image for image in images if isinstance(image, str)], source, root)
    if not images:
        return source.train, 0
    labels = torch.full((len(images),), UNLABELED)
    return _join(source.train, images, labels), len(images)


def _each_once(images: Sequence[str | Tensor]) -> list[str | Tensor]:
    """Images without the later ones of the same file; those in memory all stay."""
    known: set[tuple[int, int]] = set()
    kept: list[str | Tensor] = []
    for image in images:
        own = identities([image])
        if not own & known:
            kept.append(image)
        known |= own
    return kept


def find_images(path: str) -> list[str]:
    """List the images that a path leads to; none is opened.

    Args:
        path: a folder, in which images lie at any depth; an image file; or a text file with the
            path of an image or folder in each line, relative to its own folder.

    Raises:
        FileNotFoundError: it does not exist, or a line of the list does not.
        ValueError: it, or a folder that it lists, leads to no image; or it is a file of another
            kind.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"{KEY} must name folders, image files or lists of them that exist, or '{REST}'; "
            f"got {path!r}"
        )
    if os.path.isdir(path):
        return _require(_list_folder(path), path)
    if _is_image(path):
        return [path]
    return _require([file for line in _read_lines(path) for file in _follow(line, path)], path)


def _require(found: list[str], path: str) -> list[str]:
    if not found:
        endings = " ".join(IMG_EXTENSIONS)
        raise ValueError(f"{KEY} must lead to images, {endings}; got none in {path!r}")
    return found


def _follow(line: str, path: str) -> list[str]:
    target = os.path.join(os.path.dirname(path), line)
    if not os.path.exists(target):
        raise FileNotFoundError(f"{KEY} must list images that exist; got {line!r} in {path!r}")
    return _require(_list_folder(target), target) if os.path.isdir(target) else [target]


def _read_lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return [line.strip() for line in file if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{KEY} must name folders, image files or text files with a path in each line; got "
            f"{path!r}, which is none of them"
        ) from error


def _list_folder(folder: str) -> list[str]:
    return find_files(folder, _is_image)


def _is_image(path: str) -> bool:
    name = os.path.basename(path)
    return name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")


def _warn_of_known(files: list[str], source: Source, root: str) -> None:
    """Say where files without labels are the labelled or the test images, by their inodes."""
    unlabeled = identities(files)
    for split, what, meaning in (
        (source.train, "labelled training", "they are drawn twice, with their label and without"),
        (source.test, "test", "the accuracy is then not that of unseen images"),
    ):
        if isinstance(split.images, Tensor):
            continue
        if known := len(unlabeled & identities(split.images)):
            logger.warning(
                "%d of the %d images of %s are %s images of %r: %s",
                known, len(files), KEY, what, root, meaning,
            )  # fmt: skip


def identities(files: Sequence[str | Tensor]) -> set[tuple[int, int]]:
    """What tells image files apart, whatever links lead to them; images in memory have none."""
    stats = (os.stat(file) for file in files if isinstance(file, str) and os.path.exists(file))
    return {(stat.st_dev, stat.st_ino) for stat in stats}


def _join(split: Split, images: Sequence[str | Tensor], labels: Tensor) -> Split:
    labels = torch.cat([split.labels, labels])
    if isinstance(split.images, Tensor) and all(isinstance(image, Tensor) for image in images):
        return Split(torch.cat([split.images, torch.stack(list(images))]), labels)  # type: ignore[arg-type]
    return Split((*split.images, *images), labels)
