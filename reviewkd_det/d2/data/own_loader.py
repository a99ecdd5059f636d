"""A Python config's own training batches, of any kind."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from reviewkd_det.common.runs.workers import guard_workers

__all__ = ["OwnLoader"]

KEY = "dataloader.train"
logger = logging.getLogger(__name__)


class OwnLoader:
    """Give a loader's batches; a resumed run reads past those that it has seen.

    The batches are the same again where all that the loader draws comes from seeded generators, as
    Detectron2's samplers and a seeded process do.

    Args:
        loader: endless iterable of batches, lists of Detectron2's dictionaries.

    Raises:
        ValueError: while iterating or skipping, where the batches come to an end.
    """

    def __init__(self, loader: Iterable[list[dict[str, Any]]]) -> None:
        self.loader = loader
        self.last_batch: list[dict[str, Any]] = []
        self._batches: Iterator[list[dict[str, Any]]] | None = None
        guard_workers(loader)

    def skip(self, batches: int) -> None:
        """Begin the next iteration after so many batches, which are read now."""
        self._batches = iter(self.loader)
        if batches:
            logger.info("Reading past %d batches of the config's own loader", batches)
        for number in range(batches):
            if next(self._batches, None) is None:
                raise ValueError(f"{KEY} must give batches without end; got {number}")

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Give the batches; `last_batch` is the one given last."""
        for batch in iter(self.loader) if self._batches is None else self._batches:
            self.last_batch = batch
            yield batch
        raise ValueError(f"{KEY} must give batches without end; got its last one")
