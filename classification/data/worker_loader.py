"""Batches decoded and augmented image by image, in worker processes if there are any.

Shapes: a batch is (N, 3, S, S) uint8 with S the image size in pixels.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from classification.data.augment import Transform
from classification.data.batches import EpochBatches, EpochLoader
from classification.data.sources import Split
from reviewkd_det.common import listed
from reviewkd_det.common.runs.seeds import mix_seed
from reviewkd_det.common.runs.workers import guard_workers

__all__ = ["WorkerLoader"]

_AUGMENTATION = 2  # tells this stream of random numbers from the others of the seed
_NAMED_AT_MOST = 3


class WorkerLoader(EpochLoader):
    """Transform the images of each batch and move the batch to the device.

    The random numbers of an image are a function of (seed, epoch, its index): they depend neither
    on the workers nor on the processes nor on where an epoch was resumed, and the random state of
    the training is left alone.

    Args:
        split: the images.
        batches: indices of each batch, whose seed is the transform's as well.
        transform: function from one picture to (3, S, S) uint8.
        workers: worker processes; 0 works in this one.
        device: device that takes the batches.

    Raises:
        ValueError: If the number of workers is negative or the batches are for another number of
            images; while iterating, if an image file cannot be read.
    """

    def __init__(
        self,
        split: Split,
        batches: EpochBatches,
        transform: Transform,
        *,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if workers < 0:
            raise ValueError(f"DATA.WORKERS must be 0 or more; got {workers}")
        if len(split) != batches.length:
            raise ValueError(
                f"batches must be of the {len(split)} images; got batches of {batches.length}"
            )
        self.batches = batches
        self.images = split.images
        self.labels = split.labels
        self.device = torch.device(device)
        self._loader: DataLoader = DataLoader(
            _TransformedBatches(split, transform, batches.seed),
            sampler=_WithEpoch(batches),
            batch_size=None,  # the data set gives whole batches
            collate_fn=_keep,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # or each epoch would draw from the training's
        )
        guard_workers(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give (N, 3, S, S) uint8 images and (N,) int64 labels, on the device."""
        return map(self._to_device, self._loader)

    def describe_batch(self, epoch: int, batch: int) -> str:
        """Name the files of this process's batch, counted from 1, for an error sentence."""
        if isinstance(self.images, Tensor):
            return ""
        self.set_epoch(epoch)
        images = [self.images[index] for index in list(self.batches)[batch - 1].tolist()]
        files = [repr(image) for image in images if isinstance(image, str)]
        return f", whose images are {listed(files, _NAMED_AT_MOST)}" if files else ""

    def _to_device(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, labels = (part.to(self.device, non_blocking=True) for part in batch)
        return images, labels


class _WithEpoch:
    """Send the epoch along with the indices: workers that live on have no other way to know."""

    def __init__(self, batches: EpochBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        epoch = self.batches.epoch
        return ((epoch, indices.tolist()) for indices in self.batches)


class _TransformedBatches(Dataset):
    def __init__(self, split: Split, transform: Transform, seed: int) -> None:
        self.split, self.transform, self.seed = split, transform, seed

    def __getitem__(self, key: tuple[int, list[int]]) -> tuple[Tensor, Tensor]:
        epoch, indices = key
        with torch.random.fork_rng(devices=[]):
            images = [self._transform(index, epoch) for index in indices]
        return torch.stack(images), self.split.labels[indices]

    def _transform(self, index: int, epoch: int) -> Tensor:
        torch.default_generator.manual_seed(mix_seed(self.seed, epoch, _AUGMENTATION, index))
        return self.transform(self.split.open(index))


def _keep(batch: Any) -> Any:
    return batch
