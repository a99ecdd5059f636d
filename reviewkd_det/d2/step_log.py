"""What a training step leaves in Detectron2's storage and in the log."""

import logging
from collections.abc import Mapping, Sequence

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor

from reviewkd_det.common.distill.ratio import log_ratios
from reviewkd_det.core import FrozenTeacher, GradientShare, Weighted, gradient_norms
from reviewkd_det.d2.reading.similarity import PERIOD, LevelSimilarity
from reviewkd_det.d2.reading.views import KEY, Views

__all__ = ["StepLog"]

logger = logging.getLogger(__name__)
Losses = Mapping[str, Tensor]


class StepLog:
    """The notes of a training with methods.

    Args:
        weighted: the methods by name.
        levels: names of the levels compared.
        teacher: the first teacher, whose cache is told of where it has one.
    """

    def __init__(
        self, weighted: Mapping[str, Weighted], levels: Sequence[str], teacher: FrozenTeacher
    ) -> None:
        self.weighted = weighted
        self.levels = levels
        self.teacher = teacher
        self.similarity = LevelSimilarity()
        self._told_ratios = False

    def measure(
        self,
        step: int,
        views: Views,
        own: Tensor | None,
        distilled: Losses,
        points: Sequence[Tensor],
    ) -> None:
        """Every 100 steps, note how alike the levels are, and each loss's gradient on the pyramid.

        Args:
            step: iteration of the training.
            views: what the methods compare.
            own: sum of the student's own losses, shape (); None without any.
            distilled: weighted loss of each method, by the method's name.
            points: the student's levels that a gradient reaches.
        """
        levels = views.student.levels, views.teacher.levels
        for name, value in self.similarity.measure(step, self.levels, *levels).items():
            _put_measured(f"similarity/{name}", value)
        if step % PERIOD or own is None or not points:
            return
        norms = gradient_norms([own, *distilled.values()], points)
        if norms[0]:
            for name, norm in zip(distilled, norms[1:], strict=True):
                _put_measured(f"gradient_share/{name.lower()}", norm / norms[0])

    def write(self, step: int, own: Losses, distilled: Losses, parts: Losses) -> None:
        """Note the losses by level, the weights that are measured, and what the cache has answered.

        Args:
            step: iteration of the training.
            own: the student's own losses.
            distilled: losses of the methods, with the prefix `loss_`.
            parts: their parts by level, with the level's name behind a slash.
        """
        storage = get_event_storage()
        _put_parts(parts, storage)
        for name, weighted in self.weighted.items():
            if isinstance(weighted.loss_weight, GradientShare):
                storage.put_scalar(f"weight_{name.lower()}", weighted.factor(step))
        cache = getattr(getattr(self.teacher, "module", None), "cache", None)
        if cache is not None:
            storage.put_scalar("teacher_cache", cache.share, smoothing_hint=False)
        self._tell_ratios(step, own, distilled)

    def _tell_ratios(self, step: int, own: Losses, distilled: Losses) -> None:
        """Once, in the first step in which all methods have their full weight."""
        warmup = max(weighted.warmup_steps for weighted in self.weighted.values())
        if own and step == warmup and not self._told_ratios:
            self._told_ratios = True  # with the first of the batches of a step
            total = float(sum(loss.detach() for loss in own.values()))
            losses = {name: distilled[f"loss_{name.lower()}"] for name in self.weighted}
            values = {name: float(loss.detach()) for name, loss in losses.items()}
            log_ratios(total, values, self.weighted, step, KEY, logger)


def _put_measured(name: str, value: float) -> None:
    """Put what is measured now and then into the storage; the writers would take many as one."""
    get_event_storage().put_scalar(name, value, smoothing_hint=False)


def _put_parts(parts: Losses, storage: EventStorage) -> None:
    """Put each level's share of a loss into the storage; the first process has the mean of all."""
    if not parts:
        return
    reduced = comm.reduce_dict(dict(parts))
    # One transfer for all of them: each would wait for the GPU.
    for name, value in zip(reduced, torch.stack(list(reduced.values())).tolist(), strict=True):
        storage.put_scalar(name, value)
