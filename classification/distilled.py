"""Train a classifier alone or beside a teacher.

Shapes: N images of 3 channels, K classes.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from classification.partly_labeled import fill_target, partial_cross_entropy
from classification.reading.taps import TappedModel
from reviewkd_det.common.tensors.compiled import compiled_or_plain
from reviewkd_det.core import FrozenTeacher, Need, Truth, Weighted, without_traces

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
        label_smoothing: part of each label that is shared by all classes.
        teacher_knows_classes: whether the teacher's logits are of the student's classes.
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
        label_smoothing: float = 0.0,
        teacher_knows_classes: bool = True,
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
        self.label_smoothing = label_smoothing
        self.teacher_knows_classes = teacher is not None and teacher_knows_classes
        self.labeled_share = labeled_share
        needs = [weighted.method.needs for weighted in self.weighted.values()]
        takes_target = self.teacher_knows_classes and any(Need.TARGET in need for need in needs)
        self.fills_target = labeled_share is not None and takes_target
        self._terms: Callable[..., Any] = self.compute_terms

    def compile_losses(self, mode: str) -> None:
        """Compute the training losses through torch.compile, where it can be.

        Args:
            mode: mode of `compiled_or_plain`.
        """
        self._terms = compiled_or_plain(self.compute_terms, logger, mode=mode)

    def classify(self, images: Tensor, student: nn.Module | None = None) -> Tensor:
        """The student's logits, (N, K), for uint8 images, (N, 3, H, W).

        Args:
            images: images of a batch.
            student: what stands for the student, such as an average of it; None for itself.
        """
        used = self.student if student is None else student
        logits: Tensor = used(self.preprocess(images)).logits
        return logits

    def classify_as_teacher(self, images: Tensor) -> Tensor:
        """The teacher's logits, (N, K), for uint8 images, (N, 3, H, W)."""
        assert self.teacher is not None
        return self.teacher((self.teacher_preprocess or self.preprocess)(images)).logits

    def forward(self, images: Tensor, target: Tensor, epoch: float) -> dict[str, Tensor]:
        """Compute the training losses; under `torch.no_grad()` they leave no trace in the methods.

        Args:
            images: uint8, (N, 3, H, W); where they are mixed, float32 in [0, 1].
            target: true classes or -1, (N,); of mixed images the probabilities, (N, K).
            epoch: number of the batch's epoch, counted from 1, for warm-ups and decays.

        Returns:
            `loss_ce` and one `loss_*` per method, weighted, shape () each; the total is their sum.
        """
        active = tuple(name for name, x in self.weighted.items() if not x.has_ended(epoch))
        with without_traces(self.methods):
            terms, points = self._terms(images, target, active)
        losses = {"loss_ce": self.cross_entropy_weight * terms["ce"]}
        own = losses["loss_ce"] if self.cross_entropy_weight else None
        for name, weighted in self.weighted.items():
            key = f"loss_{name.lower()}"
            if name in terms:
                weighted.measure(own, terms[name], points)
                losses[key] = weighted.factor(epoch) * terms[name]
            else:
                losses[key] = weighted.nothing(terms["ce"])
        return losses

    def compute_terms(
        self, images: Tensor, target: Tensor, active: Sequence[str]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Compute the losses before they are weighted: compiled once as long as no method ends.

        Args:
            images: as `forward`.
            target: as `forward`.
            active: names of the methods to compute; without any the teacher is not called.

        Returns:
            The cross entropy as "ce" and the loss of each of these methods, shape () each; and by
            which tensors of the student these read it: what its taps give, or else its logits.
        """
        inputs = self.preprocess(images)
        student, outputs = self.student.read(inputs)
        assert student.logits is not None
        share, smoothing = self.labeled_share, self.label_smoothing
        terms = {"ce": partial_cross_entropy(student.logits, target, share, smoothing)}
        if self.teacher is not None and active:
            preprocess = self.teacher_preprocess
            teacher = self.teacher(inputs if preprocess is None else preprocess(images))
            filled = fill_target(target, teacher.logits) if self.fills_target else target
            truth = Truth(filled if target.ndim == 1 else None)
            for name in active:
                parts = self.methods[name](student, teacher, truth)
                terms[name] = torch.stack(list(parts.values())).sum()
        return terms, [x for x in outputs or [student.logits] if x.requires_grad]
