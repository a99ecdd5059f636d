"""Train a classifier alone or beside a teacher.

Shapes: N images of 3 channels, K classes.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classification.reading.taps import Outputs, TappedModel
from reviewkd_det.common.tensors.compiled import compiled_or_plain
from reviewkd_det.core import (
    FrozenTeacher,
    ReviewDistiller,
    decoupled_distillation_loss,
    distillation_loss,
    warmup_factor,
)

__all__ = ["DKD", "KD", "DistilledClassifier", "Method", "ReviewKD", "Shape", "pair_levels"]

logger = logging.getLogger(__name__)
Shape = tuple[int, int, int]


class ReviewKD(nn.Module):
    """Compare the levels. Chen et al., CVPR 2021.

    Args:
        student_shapes: (C, H, W) of each of the student's levels, from high to low resolution.
        teacher_shapes: the teacher's, as many.
        mid_channels: channels shared by all fusions; 0 takes the channels of the student's
            coarsest level, at most 512.
    """

    def __init__(
        self,
        student_shapes: Sequence[Shape],
        teacher_shapes: Sequence[Shape],
        mid_channels: int = 0,
    ) -> None:
        super().__init__()
        student_channels, teacher_channels = (
            [shape[0] for shape in shapes] for shapes in (student_shapes, teacher_shapes)
        )
        mid_channels = mid_channels or min(512, student_channels[-1])
        self.distiller = ReviewDistiller(student_channels, teacher_channels, mid_channels)

    def forward(self, student: Outputs, teacher: Outputs, target: Tensor) -> Tensor:
        """The loss of all levels, shape ()."""
        return torch.stack(self.distiller(student.levels, teacher.levels)).sum()


class KD(nn.Module):
    """Compare the logits. Hinton et al., 2015.

    Args:
        temperature: of both softmaxes.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Outputs, teacher: Outputs, target: Tensor) -> Tensor:
        """The loss, shape ()."""
        return distillation_loss(student.logits, teacher.logits, temperature=self.temperature)


class DKD(nn.Module):
    """Compare the logits, the target class apart. Zhao et al., CVPR 2022.

    Args:
        alpha: weight of the target term.
        beta: weight of the non-target term.
        temperature: of both softmaxes.
    """

    def __init__(self, alpha: float, beta: float, temperature: float) -> None:
        super().__init__()
        self.settings = {"alpha": alpha, "beta": beta, "temperature": temperature}

    def forward(self, student: Outputs, teacher: Outputs, target: Tensor) -> Tensor:
        """The loss, shape ()."""
        return decoupled_distillation_loss(student.logits, teacher.logits, target, **self.settings)


class Method(NamedTuple):
    """A way to learn from the teacher."""

    module: nn.Module  # of the student's and the teacher's outputs and the target
    loss_weight: float
    warmup_epochs: float  # over which the weight grows linearly from 0


class DistilledClassifier(nn.Module):
    """A student, and in training what it learns from.

    Args:
        student: the classifier that is trained.
        preprocess: makes the student's input of uint8 images.
        teacher: a `TappedModel`; None where there are no methods.
        teacher_preprocess: the teacher's; None where it is the student's.
        methods: by name.
        cross_entropy_weight: factor of the loss on the labels.
    """

    def __init__(
        self,
        student: TappedModel,
        preprocess: nn.Module,
        *,
        teacher: FrozenTeacher | None = None,
        teacher_preprocess: nn.Module | None = None,
        methods: Mapping[str, Method] | None = None,
        cross_entropy_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student = student
        self.preprocess = preprocess
        self.teacher = teacher
        self.teacher_preprocess = teacher_preprocess
        self.schedules = {name: method[1:] for name, method in (methods or {}).items()}
        self.methods = nn.ModuleDict(
            {name: method.module for name, method in (methods or {}).items()}
        )
        self.cross_entropy_weight = cross_entropy_weight
        self._terms: Callable[[Tensor, Tensor], dict[str, Tensor]] = self.compute_terms

    def compile_losses(self, mode: str) -> None:
        """Compute the training losses through torch.compile, where it can be.

        Args:
            mode: see `compiled_or_plain`.
        """
        self._terms = compiled_or_plain(self.compute_terms, logger, mode=mode)

    def classify(self, images: Tensor) -> Tensor:
        """The student's logits, (N, K), for uint8 images, (N, 3, H, W)."""
        return self.student(self.preprocess(images)).logits

    def classify_as_teacher(self, images: Tensor) -> Tensor:
        """The teacher's logits, (N, K), for uint8 images, (N, 3, H, W)."""
        assert self.teacher is not None
        return self.teacher((self.teacher_preprocess or self.preprocess)(images)).logits

    def forward(self, images: Tensor, target: Tensor, epoch: float) -> dict[str, Tensor]:
        """Compute the training losses.

        Args:
            images: uint8, (N, 3, H, W).
            target: true classes, (N,).
            epoch: of this batch, counted from 1, for the warm-ups.

        Returns:
            `loss_ce` and one `loss_*` per method, weighted, shape () each; the total is their sum.
        """
        terms = self._terms(images, target)
        losses = {"loss_ce": self.cross_entropy_weight * terms["ce"]}
        for name, (loss_weight, warmup_epochs) in self.schedules.items():
            factor = loss_weight * warmup_factor(epoch, warmup_epochs)
            losses[f"loss_{name.lower()}"] = factor * terms[name]
        return losses

    def compute_terms(self, images: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Compute the losses before they are weighted: the same for every epoch, so compiled once.

        Args:
            images: uint8, (N, 3, H, W).
            target: true classes, (N,).

        Returns:
            The cross entropy as "ce" and each method's loss by its name, shape () each.
        """
        inputs = self.preprocess(images)
        student = self.student(inputs)
        terms = {"ce": F.cross_entropy(student.logits, target)}
        if self.teacher is not None:
            preprocess = self.teacher_preprocess
            teacher = self.teacher(inputs if preprocess is None else preprocess(images))
            for name, method in self.methods.items():
                terms[name] = method(student, teacher, target)
        return terms


def pair_levels(
    student: Mapping[str, Shape], teacher: Mapping[str, Shape]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose which found levels of two networks to compare.

    Levels are paired from the coarsest on; finer ones that only one network has are left out, and
    so is the pooled vector where the other network has none.

    Args:
        student: (C, H, W) by node name, from high to low resolution.
        teacher: the same.

    Returns:
        The student's and the teacher's names, as many.

    Raises:
        ValueError: nothing is left.
    """
    is_pooled = [list(levels.values())[-1][1:] == (1, 1) for levels in (student, teacher)]
    names = [
        list(levels)[:-1] if pooled and not all(is_pooled) else list(levels)
        for levels, pooled in zip((student, teacher), is_pooled, strict=True)
    ]
    count = min(map(len, names))
    if count == 0:
        raise ValueError(f"both networks must have levels; got {dict(student)} and {dict(teacher)}")
    return tuple(names[0][-count:]), tuple(names[1][-count:])
