"""Train a classifier alone or beside a teacher.

Shapes: N images of 3 channels, K classes.
"""

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from classification.partly_labeled import fill_target, partial_cross_entropy
from classification.reading.taps import TappedModel
from reviewkd_det.common.tensors.compiled import compiled_or_plain
from reviewkd_det.core import FrozenTeacher, Need, Truth, Weighted

__all__ = ["DistilledClassifier"]

logger = logging.getLogger(__name__)


class DistilledClassifier(nn.Module):
    """A student, and in training what it learns from.

    Args:
        student: the classifier that is trained.
        preprocess: what makes the student's input of uint8 images.
        teacher: a frozen `TappedModel`; None where there are no methods.
        teacher_preprocess: what makes the teacher's input; None where it is the student's.
        methods: the methods by name; their steps are epochs.
        cross_entropy_weight: factor of the loss on the labels.
        labeled_share: part of the images of an average batch that have a label, None for all; the
            target of the others is -1, and the teacher's class where a method needs one.
    """

    def __init__(
        self,
        student: TappedModel,
        preprocess: nn.Module,
        *,
        teacher: FrozenTeacher | None = None,
        teacher_preprocess: nn.Module | None = None,
        methods: Mapping[str, Weighted] | None = None,
        cross_entropy_weight: float = 1.0,
        labeled_share: float | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.preprocess = preprocess
        self.teacher = teacher
        self.teacher_preprocess = teacher_preprocess
        self.weighted = dict(methods or {})
        self.methods = nn.ModuleDict({name: x.method for name, x in self.weighted.items()})
        self.cross_entropy_weight = cross_entropy_weight
        self.labeled_share = labeled_share
        needs = [weighted.method.needs for weighted in self.weighted.values()]
        self.fills_target = labeled_share is not None and any(Need.TARGET in need for need in needs)
        self._terms: Callable[[Tensor, Tensor], dict[str, Tensor]] = self.compute_terms

    def compile_losses(self, mode: str) -> None:
        """Compute the training losses through torch.compile, where it can be.

        Args:
            mode: mode of `compiled_or_plain`.
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
            target: true classes or -1, (N,).
            epoch: number of the batch's epoch, counted from 1, for the warm-ups.

        Returns:
            `loss_ce` and one `loss_*` per method, weighted, shape () each; the total is their sum.
        """
        terms = self._terms(images, target)
        losses = {"loss_ce": self.cross_entropy_weight * terms["ce"]}
        for name, weighted in self.weighted.items():
            losses[f"loss_{name.lower()}"] = weighted.factor(epoch) * terms[name]
        return losses

    def compute_terms(self, images: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Compute the losses before they are weighted: the same for every epoch, so compiled once.

        Args:
            images: uint8, (N, 3, H, W).
            target: true classes or -1, (N,).

        Returns:
            The cross entropy as "ce" and each method's loss by its name, shape () each.
        """
        inputs = self.preprocess(images)
        student = self.student(inputs)
        terms = {"ce": partial_cross_entropy(student.logits, target, self.labeled_share)}
        if self.teacher is not None:
            preprocess = self.teacher_preprocess
            teacher = self.teacher(inputs if preprocess is None else preprocess(images))
            truth = Truth(fill_target(target, teacher.logits) if self.fills_target else target)
            for name, method in self.methods.items():
                parts = method(student, teacher, truth)
                terms[name] = torch.stack(list(parts.values())).sum()
        return terms
