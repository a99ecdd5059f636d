"""Which images make up each batch of an epoch, for one process of several."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from reviewkd_det.common.runs.seeds import mix_seed

__all__ = ["ALONE", "EpochBatches", "EpochLoader", "Share"]


class Share(NamedTuple):
    """One process of a run: its number, counted from 0, and the number of all processes."""

    rank: int = 0
    world_size: int = 1


ALONE = Share()


class EpochBatches:
    """The index batches of one epoch after another, a function of (seed, epoch) alone.

    A total batch is what all processes handle in one optimiser step. In training it is the next
    batch_size * world_size images of a permutation drawn from (seed, epoch), the incomplete last
    one is left out, and batch i of all processes together is batch i of a single process with
    world_size times the batch. In evaluation the images come in order, each exactly once over all
    processes, whose numbers of batches may differ by 1.

    Args:
        length: number of images.
        batch_size: images of a step in this process.
        training: whether the images are shuffled and incomplete steps left out.
        seed: seed of the order of every epoch, 0 or more.
        share: this process.
        micro_batches: consecutive batches that a step is cut into (gradient accumulation).

    Raises:
        ValueError: If a number is out of range, the steps cannot be cut evenly, or there are fewer
            images than one training step needs.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        training: bool,
        seed: int = 0,
        share: Share = ALONE,
        micro_batches: int = 1,
    ) -> None:
        if length < 1 or batch_size < 1 or micro_batches < 1:
            raise ValueError(
                "length, batch_size and micro_batches must be positive; "
                f"got {length}, {batch_size} and {micro_batches}"
            )
        if not 0 <= share.rank < share.world_size:
            raise ValueError(f"rank must be 0 to world_size - 1; got {share.rank} of {share[1]}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more; got {seed}")
        if batch_size % micro_batches:
            raise ValueError(
                f"batch size of a process must be a multiple of the {micro_batches} micro-batches; "
                f"got {batch_size}"
            )
        total = batch_size * share.world_size
        if training and total > length:
            raise ValueError(
                f"total batch must be at most the {length} training images; got {total} "
                f"({share.world_size} x {batch_size})"
            )
        self.length = length
        self.training = training
        self.seed = seed
        self.share = share
        self.micro_batches = micro_batches
        self.epoch = 0
        self.images_per_epoch = length // total * total if training else length
        self._size = batch_size // micro_batches
        self._skip = 0

    def set_epoch(self, epoch: int, skip_batches: int = 0) -> None:
        """Choose the epoch of the next iteration, which leaves out the first batches.

        Args:
            epoch: counted from 0.
            skip_batches: batches of this process already done; whole steps.

        Raises:
            ValueError: If the epoch is negative, or the batches are not whole steps of the epoch.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be 0 or more; got {epoch}")
        if not 0 <= skip_batches <= len(self) or skip_batches % self.micro_batches:
            raise ValueError(
                f"skipped batches must be 0 to {len(self)} in steps of {self.micro_batches}; "
                f"got {skip_batches}"
            )
        self.epoch, self._skip = epoch, skip_batches

    def __len__(self) -> int:
        """Count the batches of this process in a whole epoch."""
        mine = len(range(self.share.rank, self.images_per_epoch, self.share.world_size))
        return -(-mine // self._size)

    def __iter__(self) -> Iterator[Tensor]:
        """Give the indices of each batch, (N,) int64."""
        order = torch.arange(self.length)
        if self.training:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, self.epoch))
            order = torch.randperm(self.length, generator=generator)
        mine = order[: self.images_per_epoch][self.share.rank :: self.share.world_size]
        starts = range(self._skip * self._size, len(mine), self._size)
        return iter([mine[start : start + self._size] for start in starts])


class EpochLoader:
    """What loaders of an epoch's batches have in common."""

    batches: EpochBatches
    labels: Tensor  # of all images, (n,)

    @property
    def images_per_epoch(self) -> int:
        """Images of an epoch, over all processes."""
        return self.batches.images_per_epoch

    def set_epoch(self, epoch: int, skip_batches: int = 0) -> None:
        """Choose the epoch of the next iteration; see `EpochBatches.set_epoch`."""
        self.batches.set_epoch(epoch, skip_batches)

    def describe_batch(self, epoch: int, batch: int) -> str:
        """Name the files of a batch, counted from 1, for an error sentence; '' if not known."""
        return ""

    def __len__(self) -> int:
        """Count the batches of this process in a whole epoch."""
        return len(self.batches)
