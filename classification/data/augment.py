"""What happens to one picture on its way into a batch of the worker loader.

Shapes: a picture is a PIL image or (3, H, W) uint8; it leaves as (3, S, S) uint8.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torchvision.transforms import v2

from classification.data.images import fit

__all__ = [
    "AUGMENTATIONS",
    "LARGE_AUGMENTATIONS",
    "SMALL_AUGMENTATIONS",
    "Transform",
    "build_erasing",
    "build_test_transform",
    "build_train_transform",
]

# The augmentations of CIFAR-size images, and those that cut a part out of a larger picture.
SMALL_AUGMENTATIONS = ("none", "crop", "crop_flip")
LARGE_AUGMENTATIONS = ("imagenet", "autoaugment")
AUGMENTATIONS = (*SMALL_AUGMENTATIONS, *LARGE_AUGMENTATIONS)

_SHORTER_EDGE = 256 / 224  # of the test picture to the image size, as usual for ImageNet

Transform = Callable[[Any], Any]


def build_erasing(probability: float, fill: Sequence[int]) -> Transform:
    """Build what paints over a rectangle, of 2 to 33% of the area, of a uint8 image (3, S, S).

    Args:
        probability: probability that it does.
        fill: colour of the rectangle; in the mean of the images it is 0 to a network.
    """
    return v2.RandomErasing(p=probability, value=list(map(float, fill)))


def build_train_transform(
    augmentation: str, image_size: int, crop_padding: int, erase: Transform | None = None
) -> Transform:
    """Build what turns a picture of any size into a training image.

    Args:
        augmentation: `none`, `crop` (zero padding and random crop), `crop_flip`, `imagenet` (random
            resized crop and flip) or `autoaugment` (these and the policy learned on ImageNet).
        image_size: S.
        crop_padding: padding of `crop` and `crop_flip`, in pixels.
        erase: what is done to the image at the end.

    Raises:
        KeyError: If the augmentation is unknown.
        ValueError: If the padding is negative.
    """
    if augmentation not in AUGMENTATIONS:
        raise KeyError(
            f"INPUT.AUGMENTATION must be one of {', '.join(AUGMENTATIONS)}; got {augmentation!r}"
        )
    if crop_padding < 0:
        raise ValueError(f"INPUT.CROP_PADDING must be 0 or more; got {crop_padding}")
    end = [v2.PILToTensor(), *([] if erase is None else [erase])]
    if augmentation in LARGE_AUGMENTATIONS:
        steps = [v2.RandomResizedCrop(image_size), v2.RandomHorizontalFlip()]
        policy = [v2.AutoAugment()] if augmentation == "autoaugment" else []
        return v2.Compose([*steps, *policy, *end])
    steps = [_Fit(image_size)]
    if augmentation != "none":
        steps.append(v2.RandomCrop(image_size, padding=crop_padding))
    if augmentation == "crop_flip":
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose([*steps, *end])


def build_test_transform(augmentation: str, image_size: int) -> Transform:
    """Build what turns a picture into a test image, for models trained with `augmentation`.

    A picture that is not S x S is resized and its centre cut out; for `imagenet` and `autoaugment`
    the shorter edge is first 256/224 S, for the others S.
    """
    large = augmentation in LARGE_AUGMENTATIONS
    shorter_edge = round(image_size * _SHORTER_EDGE) if large else image_size
    return v2.Compose([_Fit(image_size, shorter_edge), v2.PILToTensor()])


class _Fit:
    def __init__(self, image_size: int, shorter_edge: int | None = None) -> None:
        self.image_size, self.shorter_edge = image_size, shorter_edge

    def __call__(self, picture: Any) -> Any:
        return fit(picture, self.image_size, shorter_edge=self.shorter_edge)
