"""Mixup and CutMix: each image of a batch, and its label, mixed with another one.

Shapes: N images, K classes.
"""

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_dtype

from classification.data.batches import ALONE, Share
from reviewkd_det.common.runs.seeds import seeded

__all__ = ["Mixing"]

_MIXING = 4  # tells this stream of random numbers from the others of the seed


class Mixing:
    """Mix batches as torchvision's `MixUp` and `CutMix` do, one of the two for each.

    Image i is mixed with image i - 1, with one proportion for a batch. What is drawn is a function
    of (seed, epoch, number of the batch, process), so a resumed run draws the same.

    Args:
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none.
        num_classes: K.
        seed: seed of the draws.
        share: this process.
    """

    def __init__(
        self, mixup: float, cutmix: float, num_classes: int, seed: int, share: Share = ALONE
    ) -> None:
        kinds = [(v2.MixUp, mixup), (v2.CutMix, cutmix)]
        made = [kind(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds if alpha]
        self._mix = v2.RandomChoice(made) if made else None
        self._seed, self._share = seed, share

    def __call__(
        self, images: Tensor, labels: Tensor, epoch: int, batch: int
    ) -> tuple[Tensor, Tensor]:
        """Mix a batch.

        Args:
            images: uint8, (N, 3, H, W).
            labels: true classes, (N,).
            epoch: number of the epoch.
            batch: number of this process's batch in it.

        Returns:
            Images, float32 in [0, 1], and probabilities of the classes, (N, K); where nothing is
            mixed, what was given.
        """
        if self._mix is None:
            return images, labels
        with seeded(self._seed, epoch, _MIXING, batch, self._share.rank):
            mixed: tuple[Tensor, Tensor] = self._mix(
                to_dtype(images, torch.float32, scale=True), labels
            )
        return mixed
