"""Labelled images in two splits, as they are stored: no resizing, no augmentation.

Shapes: images kept in memory are (n, 3, H, W) uint8; labels are (n,) int64, counted from 0.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from classification.data.image_folder import list_image_folder
from classification.data.images import decode_images, fit, read_rgb

__all__ = ["SOURCES", "Source", "Split", "balanced_order", "load_parts", "load_source"]

DIGITS_TEST_IMAGES = 500  # of 1,797: 50 of each digit
_CHUNK = 1000  # images resized at once, to bound the memory of the intermediate results


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Args:
        images: all images as one tensor, (n, 3, H, W) uint8, or the paths of n image files, among
            which images in memory may be, (3, H, W) uint8.
        labels: (n,), int64.
    """

    images: Tensor | tuple[str | Tensor, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def open(self, index: int) -> Tensor | Image.Image:
        """Give one image: (3, H, W) uint8 if it is in memory, else the file in RGB."""
        image = self.images[index]
        return read_rgb(image) if isinstance(image, str) else image

    def load(self, image_size: int) -> Tensor:
        """Give all images, fitted to a size: (n, 3, image_size, image_size) uint8."""
        if isinstance(self.images, Tensor):
            return _fit_all(self.images, image_size)
        parts = []
        for kind, run in groupby(self.images, type):
            part: list[Any] = list(run)
            in_files = issubclass(kind, str)
            parts.append(
                decode_images(part, image_size)
                if in_files
                else _fit_all(torch.stack(part), image_size)
            )
        return torch.cat(parts)

    def take(self, indices: Tensor) -> "Split":
        """Give the images at some indices, in that order."""
        if isinstance(self.images, Tensor):
            return Split(self.images[indices], self.labels[indices])
        return Split(tuple(self.images[i] for i in indices.tolist()), self.labels[indices])


class Source(NamedTuple):
    """A training and a test split of the same classes."""

    train: Split
    test: Split
    class_names: tuple[str, ...]


def load_source(name: str, root: str, *, train_images: int = 0, subset_seed: int = 0) -> Source:
    """Load a data set that is on disk (`digits` comes with scikit-learn).

    Args:
        name: `digits`, `cifar10`, `cifar100` or `image_folder`.
        root: the folder that holds the files; unused for `digits`.
        train_images: keep only the first so many training images of one random order in which the
            classes take turns, so a smaller number gives a subset; 0 keeps all.
        subset_seed: seed of that order.

    Raises:
        KeyError: If the name is unknown.
        FileNotFoundError: If a file or folder is missing.
        ValueError: If files are damaged, the splits differ in their classes, a class has no image,
            or `train_images` is negative or more than there are.
    """
    return load_parts(name, root, train_images=train_images, subset_seed=subset_seed)[0]


def load_parts(
    name: str, root: str, *, train_images: int, subset_seed: int, with_rest: bool = False
) -> tuple[Source, Split]:
    """As `load_source`, with the training images that are not kept, in the order of the source.

    Args:
        name: name of the source.
        root: the folder that holds the files.
        train_images: number of training images to keep.
        subset_seed: seed of their choice.
        with_rest: whether the others are wanted; without it none are given.
    """
    if name not in SOURCES:
        raise KeyError(f"DATA.NAME must be one of {', '.join(SOURCES)}; got {name!r}")
    source = SOURCES[name](root)
    if not 0 <= train_images <= len(source.train):
        raise ValueError(
            f"DATA.TRAIN_IMAGES must be 0 (all) to {len(source.train)}; got {train_images}"
        )
    if not train_images:
        return source, source.train.take(torch.arange(0))
    everything, order = source.train, balanced_order(source.train.labels, subset_seed)
    rest = order[train_images:].sort().values if with_rest else order[:0]
    return source._replace(train=everything.take(order[:train_images])), everything.take(rest)


def balanced_order(labels: Tensor, seed: int = 0) -> Tensor:
    """Order labelled images at random so that the classes take turns.

    Among the first k, two classes differ in number by at most 1, unless one has run out.

    Args:
        labels: class of each image, (n,).
        seed: seed of the random order.

    Returns:
        A permutation of 0 to n - 1, (n,).
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    turn = torch.empty_like(order)
    for label in labels.unique():
        of_class = labels[order] == label
        turn[of_class] = torch.arange(int(of_class.sum()))
    return order[turn.argsort(stable=True)]


def _fit_all(images: Tensor, image_size: int) -> Tensor:
    return torch.cat([fit(part, image_size) for part in images.split(_CHUNK)])


def _load_digits(root: str) -> Source:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ModuleNotFoundError(
            "DATA.NAME 'digits' must have scikit-learn installed; got no scikit-learn; "
            "pip install scikit-learn"
        ) from error
    digits = load_digits()
    ink = torch.from_numpy(digits.images)  # (1797, 8, 8), 0 to 16
    images = (ink * (255 / 16)).round().byte()[:, None].repeat(1, 3, 1, 1)  # (1797, 3, 8, 8)
    everything = Split(images, torch.from_numpy(digits.target).long())
    order = balanced_order(everything.labels)
    return Source(
        everything.take(order[DIGITS_TEST_IMAGES:].sort().values),
        everything.take(order[:DIGITS_TEST_IMAGES].sort().values),
        tuple(str(name) for name in digits.target_names),
    )


def _load_cifar10(root: str) -> Source:
    return _load_cifar(CIFAR10, root)


def _load_cifar100(root: str) -> Source:
    return _load_cifar(CIFAR100, root)


def _load_cifar(dataset: type[CIFAR10], root: str) -> Source:
    folder = dataset.base_folder
    files = [
        *dataset.train_list,
        *dataset.test_list,
        [dataset.meta["filename"], dataset.meta["md5"]],
    ]
    what = f"DATA.ROOT must hold {folder}/ (the extracted {dataset.filename} of the CIFAR page)"
    for file_name, md5 in files:
        path = os.path.join(root, folder, file_name)
        if not os.path.isfile(path):
            lacking = folder if not os.path.isdir(os.path.join(root, folder)) else path
            raise FileNotFoundError(f"{what}; got {root!r}, which lacks {lacking}")
        if not check_integrity(path, md5):
            raise ValueError(f"{what}; got a damaged {path!r}; extract it again")
    splits = [dataset(root, train=train) for train in (True, False)]
    train, test = (
        Split(
            torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous(),  # (n, 3, 32, 32)
            torch.tensor(split.targets),
        )
        for split in splits
    )
    return Source(train, test, tuple(splits[0].classes))


def _load_image_folder(root: str) -> Source:
    train, test, class_names = list_image_folder(root)
    return Source(
        Split(tuple(train.paths), torch.tensor(train.labels)),
        Split(tuple(test.paths), torch.tensor(test.labels)),
        class_names,
    )


SOURCES: dict[str, Callable[[str], Source]] = {
    "digits": _load_digits,
    "cifar10": _load_cifar10,
    "cifar100": _load_cifar100,
    "image_folder": _load_image_folder,
}
