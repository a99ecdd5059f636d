"""Endless training batches that are a function of the seed and of their number alone.

So a run goes on exactly where it stopped, and the number of worker processes changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any

import torch
from detectron2.data import DatasetFromList
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from reviewkd_det.common.runs.seeds import seeded
from reviewkd_det.common.runs.workers import guard_workers

__all__ = ["StreamLoader"]

Record = dict[str, Any]
Draw = tuple[int, int]  # an image's index, and its place in the stream of all processes


class StreamLoader:
    """Batches of mapped images, lists of Detectron2's dictionaries, without end.

    Images come in the order of Detectron2's sampler. What the mapper draws at random for an image
    is a function of the seed and of the image's place in the stream; all random states of the
    process are left alone.

    Args:
        records: Detectron2's image dictionaries.
        mapper: function from an image dictionary to the model's input.
        sampler: endless indices of this process's images.
        batch_size: number of images in a batch of this process.
        seed: seed of what the mapper draws at random, the same in all processes.
        aspect_ratio_grouping: whether a batch is of wide images alone or of others alone.
        num_workers: number of worker processes; 0 maps in this process.
    """

    def __init__(
        self,
        records: Sequence[Record],
        mapper: Callable[[Record], Record],
        sampler: Sampler,
        batch_size: int,
        *,
        seed: int,
        aspect_ratio_grouping: bool = False,
        num_workers: int = 0,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.start = 0
        self.last_batch: list[Record] = []
        self._images = _SeededImages(records, mapper, seed)
        self._groups = [aspect_ratio_grouping and x["width"] > x["height"] for x in records]

    def skip(self, batches: int) -> None:
        """Begin the next iteration after so many batches of the stream; no image is read."""
        self.start = batches

    def __iter__(self) -> Iterator[list[Record]]:
        """Give the batches; `last_batch` is the one given last."""
        loader: DataLoader = DataLoader(
            self._images,
            batch_sampler=islice(self._batches(), self.start, None),
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # or starting it would draw from the training's
        )
        guard_workers(loader)
        for batch in loader:
            self.last_batch = batch
            yield batch

    def _batches(self) -> Iterator[list[Draw]]:
        places = count(comm.get_rank(), comm.get_world_size())
        waiting: tuple[list[Draw], list[Draw]] = [], []
        for draw in zip(self.sampler, places, strict=False):
            group = waiting[self._groups[draw[0]]]
            group.append(draw)
            if len(group) == self.batch_size:
                yield group[:]
                group.clear()


class _SeededImages(Dataset):
    def __init__(
        self, records: Sequence[Record], mapper: Callable[[Record], Record], seed: int
    ) -> None:
        self.records = DatasetFromList(records, copy=False)  # one block of bytes for all workers
        self.mapper, self.seed = mapper, seed

    def __getitem__(self, draw: Draw) -> Record:
        index, place = draw
        with seeded(self.seed, place):
            return self.mapper(self.records[index])


def _as_it_is(batch: list[Record]) -> list[Record]:
    return batch
