"""Levels that a teacher has computed before, by what it saw.

What an image shows and its border are the key, so an augmentation that shows each image anew is
never answered. A level is rounded to float16 before it is used, kept or not, so an answer is what
was given the first time; one beyond float16's range stays as it is.
"""

import logging
from collections.abc import Callable, Sequence
from hashlib import blake2b

import torch
from torch import Tensor

__all__ = ["LevelCache"]

Levels = dict[str, Tensor]
Compute = Callable[[Sequence[Tensor], tuple[int, int]], Levels]
GIGABYTE = 2**30

logger = logging.getLogger(__name__)


class LevelCache:
    """Remember a teacher's levels of each image, in main memory.

    Once the limit is reached, what is kept stays: images come in random order, so the newest are no
    better than the oldest.

    Args:
        gigabytes: most that the levels take, in 2**30 bytes.
    """

    def __init__(self, gigabytes: float) -> None:
        self.left = gigabytes * GIGABYTE
        self.asked = self.answered = 0
        self._kept: dict[bytes, Levels] = {}
        self._kinds: dict[str, torch.dtype] = {}  # of the levels as they were computed
        self._is_full = False

    @property
    def share(self) -> float:
        """The answered share of all images that were asked for; 0 before the first."""
        return self.answered / max(self.asked, 1)

    def __call__(
        self, images: Sequence[Tensor], padded_size: tuple[int, int], compute: Compute
    ) -> Levels:
        """The levels of a batch, of which the teacher computes those that are not kept.

        Args:
            images: (3, h, w) each.
            padded_size: (H, W) that all are padded to.
            compute: function from some of the images and that size to their levels.

        Returns:
            The levels by name, (N, C, H / stride, W / stride) each.
        """
        keys = [_key(image, padded_size) for image in images]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = {key: x for key, x in zip(keys, images, strict=True) if key not in found}
        self.asked += len(keys)
        self.answered += len(keys) - len(missing)
        if missing:
            computed = compute(list(missing.values()), padded_size)
            self._kinds = {name: level.dtype for name, level in computed.items()}
            for place, key in enumerate(missing):
                found[key] = {
                    name: _rounded(level[place]).cpu() for name, level in computed.items()
                }
                self._keep(key, found[key])
        return {
            name: torch.stack([found[key][name] for key in keys]).to(images[0].device, kind)
            for name, kind in self._kinds.items()
        }

    def _keep(self, key: bytes, levels: Levels) -> None:
        size = sum(level.nbytes for level in levels.values())
        if size <= self.left:
            self._kept[key] = levels
            self.left -= size
        elif not self._is_full:
            self._is_full = True
            logger.warning(
                "MODEL.DISTILL.TEACHER.CACHE is full with the levels of %d images and has answered "
                "%.0f%% of those asked for; the teacher computes all others",
                len(self._kept),
                100 * self.share,
            )


def _key(image: Tensor, padded_size: tuple[int, int]) -> bytes:
    settings = (image.dtype, tuple(image.shape), padded_size)
    content = image.contiguous().cpu().numpy().tobytes()
    return blake2b(repr(settings).encode() + content, digest_size=16).digest()


def _rounded(level: Tensor) -> Tensor:
    """A copy in half precision, where its range is enough."""
    half = level.to(level.dtype if level.itemsize == 2 else torch.float16, copy=True)
    return half if bool(half.isfinite().all()) else level.clone()
