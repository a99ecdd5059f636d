"""The parts of a training step, each as a function without arguments that can be timed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from benchmarks.speed.measure import resident_memory
from benchmarks.speed.models import Models, find_distiller
from benchmarks.textbook import textbook_hcl
from reviewkd_det.core import hierarchical_context_loss
from reviewkd_det.d2.reading.unlabeled import joined_backbone
from reviewkd_det.d2.teacher.backbone import PRECISIONS

__all__ = ["Levels", "Step", "distillation", "loss_pass", "parts", "record_levels"]

# The cost of a step does not depend on it; random weights must not diverge over the repeats.
LEARNING_RATE = 1e-5
Batch = list[dict[str, Any]]


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Automatic mixed precision; none at float32."""
    kind = PRECISIONS.get(precision, torch.float32)
    return torch.autocast(device.type, dtype=kind, enabled=kind != torch.float32)


class Step:
    """A training step: forward, backward, SGD with momentum; no gradients are left after it.

    Args:
        model: returns the losses of a batch.
        trained: the modules that learn.
        frozen: those that are held besides.
        batch: Detectron2's training input.
        precision: float32, float16 (with a scaled loss) or bfloat16.
    """

    def __init__(
        self,
        model: Callable[[Batch], Mapping[str, Tensor]],
        trained: Sequence[nn.Module],
        frozen: Sequence[nn.Module],
        batch: Batch,
        precision: str,
    ) -> None:
        self.model, self.modules, self.batch = model, [*trained, *frozen], batch
        self.precision = precision
        learning = [p for module in trained for p in module.parameters() if p.requires_grad]
        self.trained_parameters = sum(p.numel() for p in learning)
        self.device = learning[0].device
        self.optimizer = torch.optim.SGD(learning, LEARNING_RATE, momentum=0.9, weight_decay=1e-4)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "float16")

    def __call__(self) -> None:
        """Take the step."""
        # Past the first iteration, in which the ratio of the losses is reported.
        with EventStorage(start_iter=1), autocast(self.device, self.precision):
            loss = torch.stack(list(self.model(self.batch).values())).sum()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def resident_memory(self) -> float:
        """What is held between two steps, in MB."""
        return resident_memory(self.modules, self.optimizer)


class Levels(NamedTuple):
    """The maps a method is given in one step, high to low resolution, and the teacher's images."""

    student: list[Tensor]  # (N, Cs, H, W) each
    teacher: list[Tensor]  # (N, Ct, H, W) each
    images: Tensor  # (N, 3, H, W), normalised and padded
    padded_size: tuple[int, int]


def record_levels(models: Models, batch: Batch, precision: str) -> Levels:
    """Record what the methods get, in the precision of a step."""
    ours, textbook = models.ours, models.textbook
    images = textbook.images(batch)
    with torch.no_grad(), EventStorage(start_iter=1), autocast(images.device, precision):
        with joined_backbone(ours.student) as calls:
            ours.student(batch)
        teacher = textbook.teacher(images)
    (call,) = calls
    return Levels(
        [call.levels[name] for name in textbook.names],
        [teacher[name] for name in textbook.names],
        images,
        call.size,
    )


def distillation(
    review: nn.Module, student: Sequence[Tensor], teacher: Sequence[Tensor], precision: str
) -> Callable[[], None]:
    """Fusions and loss, forward and backward, to the parameters and to the student's levels."""

    def call() -> None:
        leaves = [level.detach().requires_grad_() for level in student]
        with autocast(leaves[0].device, precision):
            loss = torch.stack(review(leaves, teacher)).sum()
        loss.backward()
        review.zero_grad(set_to_none=True)

    return call


def loss_pass(
    hcl: Callable[[Tensor, Tensor], Tensor], teacher: Sequence[Tensor], precision: str
) -> Callable[[], None]:
    """The loss alone, forward and backward, on random maps of the teacher's shapes."""
    maps = [torch.randn_like(level) for level in teacher]

    def call() -> None:
        leaves = [level.detach().requires_grad_() for level in maps]
        with autocast(leaves[0].device, precision):
            losses = [hcl(ours, theirs) for ours, theirs in zip(leaves, teacher, strict=True)]
            loss = torch.stack(losses).sum()
        loss.backward()

    return call


def parts(models: Models, batch: Batch, precision: str) -> dict[str, Callable[[], object]]:
    """All that is timed, by name."""
    ours, textbook = models.ours, models.textbook
    levels = record_levels(models, batch, precision)
    device = levels.images.device
    own_images = [x["image"] for x in batch]
    teacher = ours.teacher.module

    def teacher_backbone() -> None:
        with torch.no_grad(), autocast(device, precision):
            textbook.teacher(levels.images)

    def our_teacher() -> None:
        with autocast(device, precision):
            ours.teacher(own_images, levels.padded_size)

    distiller = find_distiller(ours)
    both = levels.student, levels.teacher, precision
    return {
        "plain_step": Step(models.plain, [models.plain], [], batch, precision),
        "teacher_backbone": teacher_backbone,
        "teacher": our_teacher,
        "distilled_step": Step(ours, [ours.student, ours.methods], [teacher], batch, precision),
        "textbook_step": Step(
            textbook, [textbook.student, textbook.review], [textbook.teacher], batch, precision
        ),
        "distillation": distillation(distiller, *both),
        "textbook_distillation": distillation(textbook.review, *both),
        "hcl": loss_pass(hierarchical_context_loss, levels.teacher, precision),
        "textbook_hcl": loss_pass(textbook_hcl, levels.teacher, precision),
    }
