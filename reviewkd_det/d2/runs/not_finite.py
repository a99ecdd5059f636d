"""What to tell of a training step whose losses are not finite."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.layers.batch_norm import NaiveSyncBatchNorm
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from reviewkd_det.common.distill.batch_of_one import REFUSAL
from reviewkd_det.d2.reading.taps import tapped
from reviewkd_det.d2.runs.batch_statistics import batch_of_one_sentence
from reviewkd_det.d2.runs.launch import unwrapped

__all__ = ["MixedStep", "OwnLosses", "describe_failure", "describe_failures"]

SYNCHRONISED = (nn.SyncBatchNorm, NaiveSyncBatchNorm)


class OwnLosses(SimpleTrainer):
    """Stop in the process whose losses are not finite, which alone knows its images.

    Detectron2 compares their mean over all processes, in the first one.
    """

    def _write_metrics(self, loss_dict: Mapping[str, Tensor], *args: Any, **options: Any) -> None:
        if comm.get_world_size() > 1:
            total = float(sum(loss.detach() for loss in loss_dict.values()))
            if not math.isfinite(total):
                raise FloatingPointError(f"losses must be finite; got a sum of {total}")
        super()._write_metrics(loss_dict, *args, **options)


class MixedStep(OwnLosses, AMPTrainer):
    """A step in automatic mixed precision."""


@contextmanager
def describe_failures(trainer: Any) -> Iterator[None]:
    """Raise what a trainer's step raises again, with what there is to say of it.

    Args:
        trainer: trainer whose data loader has the step's batch as `last_batch`.

    Raises:
        FloatingPointError: losses are not finite; see `describe_failure`.
        ValueError: a process has one image, with a level of one cell that is normalised.
    """
    try:
        yield
    except FloatingPointError as error:
        batch = trainer.data_loader.last_batch
        description = describe_failure(trainer.model, batch, trainer.iter, error)
        raise FloatingPointError(description) from error
    except ValueError as error:
        if not str(error).startswith(REFUSAL):
            raise
        settings, part = trainer.settings, f"the model, {error}"
        steps = settings.accumulation_steps
        sentence = batch_of_one_sentence(settings.batch_key, part, steps=steps)
        raise ValueError(sentence) from error


@torch.no_grad()
def describe_failure(
    model: nn.Module, batch: Sequence[Mapping[str, Any]], iteration: int, error: Exception
) -> str:
    """Run a failed step's forward pass once more, to say where it goes wrong.

    Args:
        model: network that is trained, with the weights of the failed step.
        batch: input of the step.
        iteration: number of the step.
        error: exception of the step, which stands for losses that the pass does not give.

    Returns:
        A sentence with the losses, the files, and each network's largest activation.
    """
    model = unwrapped(model)
    student = getattr(model, "student", model)
    teacher = getattr(model, "teacher", None)
    losses: dict[str, Tensor] = {}
    with (
        suppress(FloatingPointError),
        EventStorage(iteration),
        _alone(model),
        tapped(student, ["backbone"]) as student_calls,
        tapped(teacher.module if teacher else nn.Identity(), [""]) as teacher_calls,
    ):
        losses = model(batch)
    networks = {"student": student_calls["backbone"], "teacher": teacher_calls[""]}
    largest = {name: _largest(calls[-1].output) for name, calls in networks.items() if calls}
    shown = [f"{name} {float(value):.4g}" for name, value in losses.items()]
    told = ", ".join(shown) or " ".join(str(error).split())
    levels = "; ".join(f"the {name}'s largest activation is {x}" for name, x in largest.items())
    files = ", ".join(str(x.get("file_name", "an image")) for x in batch)
    processes = comm.get_world_size()
    where = f", process {comm.get_rank()} of {processes}," if processes > 1 else ""
    return (
        f"losses must be finite; got {told} in iteration {iteration}{where} with {files}; "
        f"{levels}; checkpoints are as they were; try a lower SOLVER.BASE_LR"
    )


@contextmanager
def _alone(model: nn.Module) -> Iterator[None]:
    """Let layers of shared batch statistics take this process's own; the others do not call."""
    layers = [x for x in model.modules() if isinstance(x, SYNCHRONISED) and x.training]
    stored = [(layer, layer.running_mean, layer.running_var) for layer in layers]
    for layer in layers:
        layer.training, layer.running_mean, layer.running_var = False, None, None
    try:
        yield
    finally:
        for layer, mean, var in stored:
            layer.training, layer.running_mean, layer.running_var = True, mean, var


def _largest(levels: Mapping[str, Tensor]) -> str:
    found = {name: float(level.abs().max()) for name, level in levels.items()}
    name = max(found, key=lambda name: (found[name] != found[name], found[name]))  # NaN is largest
    return f"{found[name]:.4g} in {name}"
