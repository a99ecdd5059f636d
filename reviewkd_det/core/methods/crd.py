"""CRD: vectors told from those of other images. Tian et al., ICLR 2020, arXiv:1910.10699.

"Contrastive Representation Distillation". Shapes: N images of a batch, n of the training set, D
features of an embedding.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reviewkd_det.core import settings
from reviewkd_det.core.method import Method, Need, Side, Truth, View, given
from reviewkd_det.core.processes import gather_rows
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import setting, weight_setting
from reviewkd_det.core.training_step import is_training_step
from reviewkd_det.core.widen import product, widen

__all__ = ["CRD", "OtherClasses", "contrast_loss"]

EPSILON = 1e-7


def contrast_loss(scores: Tensor, samples: int) -> Tensor:
    """Tell the first score of a row from the others, by noise contrastive estimation.

    With e the scores, K of them negative, n images in the training set, and c = K / n:
    `-log(e_0 / (e_0 + c)) - sum log(c / (e_k + c))` over the negative ones, the mean over images.
    Equation 18 of the paper.

    Args:
        scores: scores of the own image, then of the negative ones, (N, 1 + K), positive.
        samples: n.

    Returns:
        The loss, shape ().
    """
    count = scores.shape[1] - 1
    noise = count / samples
    positive = (scores[:, 0] / (scores[:, 0] + noise + EPSILON)).log()
    negative = (noise / (scores[:, 1:] + noise + EPSILON)).log().sum(1)
    return -(positive + negative).mean()


class OtherClasses(nn.Module):
    """Draw images of other classes than a given one, each as likely as the others.

    Args:
        classes: class of each image of the training set, (n,); images of one unknown class, -1,
            are drawn as those of any other.

    Raises:
        ValueError: all are of one class.
    """

    order: Tensor
    first: Tensor
    count: Tensor

    def __init__(self, classes: Tensor) -> None:
        super().__init__()
        known, places = torch.unique(classes, return_inverse=True)
        if len(known) < 2:
            raise ValueError(f"training images must be of two classes or more; got {len(known)}")
        count = torch.bincount(places, minlength=len(known))
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("order", places.argsort(stable=True), persistent=False)
        self.register_buffer("first", count.cumsum(0) - count, persistent=False)
        self.register_buffer("count", count, persistent=False)

    def forward(self, sample: Tensor, count: int) -> Tensor:
        """Draw so many images for each image of a batch, (N, count).

        Args:
            sample: numbers of the batch's images, (N,).
            count: images for each.
        """
        place = self.places[sample]  # type: ignore[index]
        first, size = self.first[place, None], self.count[place, None]  # (N, 1)
        share = torch.rand(len(sample), count, device=sample.device)
        # The images in the order of their classes, of which the own class is left out.
        others = len(self.order) - size
        drawn = torch.minimum((share * others).long(), others - 1)  # a product may be rounded up
        return self.order[drawn + size * (drawn >= first)]


@register("CRD")
class CRD(Method):
    """Both vectors in an embedding, told from other images' by memories of both sides.

    The memories hold a row for each training image, of either side, and are saved with the run: 2 x
    n x D numbers. Over several processes they take in the images of all. Images are told from those
    of other classes; an image without a label from all that have one.
    """

    needs = Need.VECTOR | Need.SAMPLE

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of CRD; all are published for CIFAR-100."""

        loss_weight: float | str = weight_setting(0.8)
        features: int = setting(128, "Features of the embedding.", least=2)
        negatives: int = setting(16384, "Images of other classes for each image.", least=1)
        temperature: float = setting(0.07, "Divisor of the similarities.", above=0)
        momentum: float = setting(
            0.5, "What a memory keeps of an image's row, below 1.", least=0, below=1
        )

    memory: Tensor
    normaliser: Tensor

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        super().__init__(settings, student, teacher)
        self.embed = nn.ModuleList(
            nn.Linear(given(side.vector), settings.features) for side in (student, teacher)
        )

    def meet_samples(self, classes: Tensor) -> None:
        """Make the memories, and what draws the negative images."""
        bound = 1 / math.sqrt(self.settings.features / 3)
        shape = (2, len(classes), self.settings.features)
        self.register_buffer("memory", (2 * torch.rand(shape) - 1) * bound)
        self.register_buffer("normaliser", torch.zeros(2))  # until the first batch
        self.others = OtherClasses(classes)

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss, which has one part, and let the memories take in the batch."""
        s, samples, sample = self.settings, len(self.memory[0]), given(truth.sample)
        negatives = self.others(sample, s.negatives)
        chosen = torch.cat([sample[:, None], negatives], 1)  # (N, 1 + K)
        rows = [
            F.normalize(widen(embed(view.vector)))
            for embed, view in zip(self.embed, (student, teacher), strict=True)
        ]
        memory = self.memory.clone()  # which the batch changes before the gradients are computed
        loss = rows[0].new_zeros(())
        # The student's rows are told apart by the teacher's memory, and the reverse.
        for side, row in enumerate(rows):
            similarity = product(row, memory[1 - side].T) / s.temperature  # (N, n)
            scores = similarity.gather(1, chosen).exp()
            started = self.normaliser[side] > 0
            fixed = torch.where(started, self.normaliser[side], scores.detach().mean() * samples)
            if is_training_step(self):
                self.normaliser[side] = fixed
            loss = loss + contrast_loss(scores / fixed, samples)
        if is_training_step(self):
            self._take_in(sample, [row.detach() for row in rows])
        return {"": loss}

    @torch.no_grad()
    def _take_in(self, sample: Tensor, rows: list[Tensor]) -> None:
        keep = self.settings.momentum
        sample, *gathered = (gather_rows(x) for x in (sample, *rows))
        for side, row in enumerate(gathered):
            kept = keep * self.memory[side, sample] + (1 - keep) * row.to(self.memory)
            self.memory[side, sample] = F.normalize(kept)
