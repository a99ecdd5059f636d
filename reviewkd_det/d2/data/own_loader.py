"""A Python config's own training batches, of any kind."""

from collections.abc import Iterable, Iterator
from typing import Any

from reviewkd_det.common.runs.workers import guard_workers

__all__ = ["OwnLoader"]


class OwnLoader:
    """Give a loader's batches; a resumed run reads past those that it has seen.

    The batches are the same again where all that the loader draws comes from seeded generators, as
    Detectron2's samplers and a seeded process do.

    Args:
        loader: endless iterable of batches, lists of Detectron2's dictionaries.
    """

    def __init__(self, loader: Iterable[list[dict[str, Any]]]) -> None:
        self.loader = loader
        self.last_batch: list[dict[str, Any]] = []
        self._batches: Iterator[list[dict[str, Any]]] | None = None
        guard_workers(loader)

    def skip(self, batches: int) -> None:
        """Begin the next iteration after so many batches, which are read now."""
        self._batches = iter(self.loader)
        for _ in range(batches):
            next(self._batches)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Give the batches; `last_batch` is the one given last."""
        for batch in iter(self.loader) if self._batches is None else self._batches:
            self.last_batch = batch
            yield batch
