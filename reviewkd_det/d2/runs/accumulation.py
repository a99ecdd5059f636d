"""An optimiser step over several batches, computed one after the other.

Detectron2's trainers see one batch and one network: the batch is the list of a step's batches, and
the network runs through them and leaves the last one's gradients to the trainer.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from reviewkd_det.d2.compat import images_of
from reviewkd_det.d2.runs.mixed_precision import InBFloat16
from reviewkd_det.d2.runs.not_finite import MixedStep, OwnLosses

__all__ = ["AccumulatedModel", "StepBatches", "build_step"]

Losses = dict[str, Tensor]


class StepBatches:
    """The batches of a loader in lists, one list for each optimiser step.

    Args:
        loader: endless batches.
        parts: batches of a step.
    """

    def __init__(self, loader: Any, parts: int) -> None:
        self.loader, self.parts = loader, parts
        self.losses: list[Tensor] = []  # the total of each batch of the step that is computed
        self._step: list[Any] = []

    @property
    def last_batch(self) -> Any:
        """The first batch of the last step whose loss is not finite or missing, else its last."""
        bad = [i for i, loss in enumerate(self.losses) if not bool(loss.isfinite().all())]
        at = bad[0] if bad else min(len(self.losses), len(self._step) - 1)
        return self._step[at]

    def skip(self, steps: int) -> None:
        """Begin the next iteration after so many steps."""
        self.loader.skip(steps * self.parts)

    def __iter__(self) -> Iterator[list[Any]]:
        """Give the batches of each step."""
        batches = iter(self.loader)
        while step := list(islice(batches, self.parts)):
            self._step, self.losses = step, []
            yield step


class AccumulatedModel(nn.Module):
    """Compute the losses of a step's batches, and the gradients of all but the last one.

    Args:
        model: network from a batch to its losses; with several processes gradients are
            exchanged with the last batch alone.
        batches: batches of the steps.
    """

    def __init__(self, model: nn.Module, batches: StepBatches) -> None:
        super().__init__()
        self.model, self.batches = model, batches
        self.scale: Callable[[Tensor], Tensor] = lambda loss: loss

    def forward(self, step: Sequence[Any]) -> Losses:
        """Run through a step's batches.

        Args:
            step: inputs of the network.

        Returns:
            The mean of each loss over the batches; its gradient is the share of the last one.
        """
        records: list[EventStorage] = []
        found: list[Losses] = []
        for batch in step[:-1]:
            with self._alone():
                losses = self._run(batch, len(step), records)
                with torch.autocast(_device_type(losses), enabled=False):
                    self.scale(_total(losses)).backward()
            found.append({name: loss.detach() for name, loss in losses.items()})
        last = self._run(step[-1], len(step), records)
        _record_means(records)
        names = dict.fromkeys(name for losses in [*found, last] for name in losses)
        zero = next(iter(last.values())).new_zeros(())
        return {
            name: last.get(name, zero) + sum(losses.get(name, zero) for losses in found)
            for name in names
        }

    def _run(self, batch: Any, parts: int, records: list[EventStorage]) -> Losses:
        """The losses of a batch as its share of the step's mean."""
        with EventStorage(get_event_storage().iter) as record:
            losses = self.model(batch)
        records.append(record)
        losses = {"total_loss": losses} if isinstance(losses, Tensor) else losses
        self.batches.losses.append(_total(losses).detach())
        return {name: loss / parts for name, loss in losses.items()}

    def _alone(self) -> Any:
        several = isinstance(self.model, DistributedDataParallel)
        return self.model.no_sync() if several else nullcontext()  # type: ignore[operator]


def build_step(
    model: nn.Module, loader: Any, optimizer: torch.optim.Optimizer, *, precision: str
) -> SimpleTrainer:
    """Detectron2's trainer of one step.

    Args:
        model: network, as several processes wrap it.
        loader: batches; `StepBatches` where a step is over several.
        optimizer: optimiser of the network.
        precision: "float32", or "float16" or "bfloat16" in automatic mixed precision.
    """
    kind = MixedStep if precision == "float16" else OwnLosses
    is_accumulated = isinstance(loader, StepBatches)
    if is_accumulated:
        model = AccumulatedModel(model, loader)
    inner = model
    if precision == "bfloat16":
        model = InBFloat16(model, next(model.parameters()).device.type)
    step = kind(model, loader, optimizer, zero_grad_before_forward=is_accumulated)
    if isinstance(inner, AccumulatedModel) and isinstance(step, MixedStep):
        inner.scale = step.grad_scaler.scale
    return step


def _total(losses: Losses) -> Tensor:
    total: Any = sum(losses.values())  # as Detectron2 adds them
    return total


def _device_type(losses: Losses) -> str:
    return next(iter(losses.values())).device.type


def _record_means(records: Sequence[EventStorage]) -> None:
    """Put the means of what a step's batches have logged, and the last one's pictures."""
    storage = get_event_storage()
    values: dict[str, list[float]] = {}
    for record in records:
        for name, (value, _) in record.latest().items():
            values.setdefault(name, []).append(value)
    hints = {name: hint for record in records for name, hint in record.smoothing_hints().items()}
    for name, found in values.items():
        mean = sum(found) / len(found)
        storage.put_scalar(name, mean, smoothing_hint=hints[name])
    for name, image in images_of(records[-1]):
        storage.put_image(name, image)
