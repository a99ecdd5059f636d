"""What to tell of a training step whose losses are not finite."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from reviewkd_det.d2.reading.taps import tapped
from reviewkd_det.d2.runs.launch import unwrapped

__all__ = ["describe_failure", "describe_failures"]


@contextmanager
def describe_failures(trainer: Any) -> Iterator[None]:
    """Raise a FloatingPointError of a trainer's step again, with what `describe_failure` says.

    Args:
        trainer: trainer whose data loader has the step's batch as `last_batch`.
    """
    try:
        yield
    except FloatingPointError as error:
        batch = trainer.data_loader.last_batch
        description = describe_failure(trainer.model, batch, trainer.iter, error)
        raise FloatingPointError(description) from error


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
    return (
        f"losses must be finite; got {told} in iteration {iteration} with {files}; {levels}; "
        "checkpoints are as they were; try a lower SOLVER.BASE_LR"
    )


def _largest(levels: Mapping[str, Tensor]) -> str:
    found = {name: float(level.abs().max()) for name, level in levels.items()}
    name = max(found, key=lambda name: (found[name] != found[name], found[name]))  # NaN is largest
    return f"{found[name]:.4g} in {name}"
