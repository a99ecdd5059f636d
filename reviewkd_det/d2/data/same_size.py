"""Test images in batches, without a change of what the detector sees of each."""

from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any

__all__ = ["SameSizeBatches", "checked_batch"]

Inputs = list[dict[str, Any]]


def checked_batch(most: int) -> int:
    """The most images of a batch, as they are given.

    Raises:
        ValueError: there is to be none.
    """
    if most < 1:
        raise ValueError(f"TEST.IMS_PER_BATCH must be at least 1; got {most}")
    return most


class SameSizeBatches:
    """Batches of images of one size that follow each other, of a loader of single images.

    Images of other sizes would be padded to the largest, and detected in with its border.

    Args:
        loader: loader that gives lists of one image each, "image" of shape (C, H, W).
        most: most images of a batch.
    """

    def __init__(self, loader: Any, most: int) -> None:
        self.dataset, self.most = loader, most  # by that name its workers are found

    def __len__(self) -> int:
        """The number of images, which is the most batches there can be."""
        return len(self.dataset)

    def __iter__(self) -> Iterator[Inputs]:
        """Give the batches, with the images in the loader's order."""
        for _, images in groupby((x for (x,) in self.dataset), lambda x: x["image"].shape):
            while batch := list(islice(images, self.most)):
                yield batch
