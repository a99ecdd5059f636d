"""Train a classifier alone or beside a teacher.

Shapes: N images of 3 channels, K classes.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from classification.partly_labeled import fill_target, partial_cross_entropy
from classification.peers import PastNetworks, Peers
from classification.reading.taps import TappedModel
from classification.several import mean_logits
from reviewkd_det.common.distill.build import needs_of
from reviewkd_det.common.tensors.compiled import compiled_or_plain
from reviewkd_det.core import (
    FrozenTeacher,
    Method,
    Need,
    Truth,
    View,
    Weighted,
    acting_methods,
    given,
    is_training_step,
    without_traces,
)

__all__ = ["DistilledClassifier"]

logger = logging.getLogger(__name__)


class DistilledClassifier(nn.Module):
    """A student, and in training what it learns from.

    Args:
        student: the classifier that is trained.
        preprocess: what makes the student's input of uint8 images.
        teacher: a frozen `TappedModel`; None without methods, or without one that has a teacher,
            and until there is one.
        teacher_preprocess: what makes the teacher's input; None where it is the student's.
        peers: networks that are trained beside the student; None without any.
        past: what these and the student were some steps ago; None where they hear what the others
            say now.
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
        peers: Peers | None = None,
        past: PastNetworks | None = None,
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
        self.peers, self.past = peers, past
        self.weighted = dict(methods or {})
        self.methods = nn.ModuleDict({name: x.method for name, x in self.weighted.items()})
        self.cross_entropy_weight = cross_entropy_weight
        self.label_smoothing = label_smoothing
        self.teacher_knows_classes = teacher_knows_classes
        self.labeled_share = labeled_share
        needs = needs_of(self.weighted)
        takes_target = self.teacher_knows_classes and Need.TARGET in needs
        self.fills_target = labeled_share is not None and takes_target
        self.takes_gradient = Need.INPUT_GRADIENT in needs
        self.takes_sample = Need.SAMPLE in needs
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
        """The teacher's logits, (N, K), for uint8 images, (N, 3, H, W); of several their mean."""
        assert self.teacher is not None
        return mean_logits(self.teacher((self.teacher_preprocess or self.preprocess)(images)))

    def classify_as_peer(self, index: int, images: Tensor) -> Tensor:
        """The logits, (N, K), of a network beside the student, for uint8 images, (N, 3, H, W)."""
        assert self.peers is not None
        inputs = self.preprocess(images)
        shared = self.student(inputs).shared if self.peers.begin_late[index] else None
        return given(self.peers.classify(index, inputs, shared).logits)

    def forward(
        self, images: Tensor, target: Tensor, epoch: float, sample: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the training losses; under `torch.no_grad()` they leave no trace in the methods.

        Args:
            images: uint8, (N, 3, H, W); where they are mixed, float32 in [0, 1].
            target: true classes or -1, (N,); of mixed images the probabilities, (N, K).
            epoch: number of the batch's epoch, counted from 1, for stages, warm-ups and decays.
            sample: number of each image in the training set, (N,), where a method needs it.

        Returns:
            `loss_ce` and one `loss_*` per method, weighted, shape () each; the total is their sum.
        """
        acting, is_stage = acting_methods(self.weighted, epoch)
        if self.past is not None and is_training_step(self):
            assert self.peers is not None
            self.past.follow(self.student, self.peers)
        with without_traces(self.methods):
            terms, points = self._terms(images, target, sample, acting, is_stage)
        factor = 0.0 if is_stage else self.cross_entropy_weight
        own_terms = {"loss_ce": terms["ce"], "loss_ce_peers": terms.get("ce_peers")}
        losses = {key: factor * x for key, x in own_terms.items() if x is not None}
        own = losses["loss_ce"] if factor else None
        for name, weighted in self.weighted.items():
            key = f"loss_{name.lower()}"
            if name not in terms:
                losses[key] = weighted.nothing(terms["ce"])
            elif is_stage and not weighted.method.teaches_in_stage:
                losses[key] = terms[name]
            else:
                weighted.measure(own, terms[name], points)
                losses[key] = weighted.factor(epoch) * terms[name]
        return losses

    def student_learns(self, epoch: float) -> bool:
        """Whether the student is trained in an epoch, or what only serves to teach it."""
        acting, is_stage = acting_methods(self.weighted, epoch)
        return not is_stage or any(self.weighted[x].method.teaches_in_stage for x in acting)

    def compute_terms(
        self,
        images: Tensor,
        target: Tensor,
        sample: Tensor | None,
        active: Sequence[str],
        is_stage: bool = False,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Compute the losses before they are weighted: compiled once as long as no method ends.

        Args:
            images: as `forward`.
            target: as `forward`.
            sample: as `forward`.
            active: names of the methods to compute; without any the teacher is not called.
            is_stage: whether they compute the losses of the stage before training.

        Returns:
            The cross entropy as "ce", that of the peers as "ce_peers" and the loss of each of these
            methods, shape () each; and by which tensors of the student these read it: what its taps
            give, or else its logits.
        """
        if self.takes_gradient and active:
            # Both sides' gradients are on what the two have in common.
            scaled = images.float() / 255 if images.dtype == torch.uint8 else images
            images = scaled.detach().requires_grad_()
        inputs = self.preprocess(images)
        student, outputs = self.student.read(inputs)
        logits = student.logits
        assert logits is not None
        share, smoothing = self.labeled_share, self.label_smoothing
        terms = {"ce": partial_cross_entropy(logits, target, share, smoothing)}
        if self.peers is not None:
            student = student._replace(peers=self.peers(inputs, student.shared))
            every = [given(peer.logits) for peer in student.peers]
            labels = [partial_cross_entropy(x, target, share, smoothing) for x in every]
            terms["ce_peers"] = torch.stack(labels).sum()
        if self.past is not None and active:
            student = student._replace(past=self.past(inputs))
        if active:
            preprocess = self.teacher_preprocess
            teacher: View
            if self.teacher is None:  # each method does without
                teacher = View()
            elif self.takes_gradient:
                student, teacher = self._with_gradients(images, student)
            else:
                teacher = self.teacher(inputs if preprocess is None else preprocess(images))
            filled = target
            if self.fills_target and teacher.logits is not None:
                filled = fill_target(target, teacher.logits)
            truth = Truth(filled if target.ndim == 1 else None, sample=sample)
            for name in active:
                method = self.methods[name]
                compute: Callable[..., dict[str, Tensor]]
                compute = cast(Method, method).forward_stage if is_stage else method
                parts = compute(student, teacher, truth)
                terms[name] = torch.stack(list(parts.values())).sum()
        return terms, [x for x in outputs or [logits] if x.requires_grad]

    def _with_gradients(self, images: Tensor, student: View) -> tuple[View, View]:
        """Both views, with the gradients of the logits of the teacher's classes on the images."""
        assert self.teacher is not None
        with torch.enable_grad():
            copy = images.detach().requires_grad_()
            found = self.teacher.module((self.teacher_preprocess or self.preprocess)(copy))
            highest, classes = found.logits.max(dim=1)
            (theirs,) = torch.autograd.grad(highest.sum(), copy)
        detached = [x.detach() for x in found.levels]
        vector = None if found.vector is None else found.vector.detach()
        teacher = View(detached, found.logits.detach(), vector, theirs)
        assert student.logits is not None
        chosen = student.logits.gather(1, classes[:, None])
        # Without a graph, as in an evaluation of the losses, there is nothing to learn from them.
        if not chosen.requires_grad:
            return student._replace(input_gradient=torch.zeros_like(theirs)), teacher
        (ours,) = torch.autograd.grad(chosen.sum(), images, create_graph=True)
        return student._replace(input_gradient=ours), teacher
