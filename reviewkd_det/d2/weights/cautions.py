"""What initial weights do not go with: other images, and parts that are never trained."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import nn

from reviewkd_det.common import listed

__all__ = ["ConfigKeys", "Images", "warn_of_frozen", "warn_of_images"]

logger = logging.getLogger(__name__)
RGB_MEAN, RGB_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
MEAN_TOLERANCE = 10.0  # in pixel values; the means of red and blue are 20 apart
STD_TOLERANCE = 1.5  # a factor


class Images(NamedTuple):
    """How a detector sees images; None where it does not matter or is not known.

    Args:
        format: order of the channels, "RGB" or "BGR".
        mean: mean of each channel in that order, in pixel values.
        std: standard deviation of each channel in that order, in pixel values.
        stride_in_1x1: whether a ResNet's blocks have their stride in the first convolution.
    """

    format: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    stride_in_1x1: bool | None = None


class ConfigKeys(NamedTuple):
    """What a config calls these, for sentences.

    Args:
        format: key of the order of the channels.
        mean: key of the mean.
        std: key of the standard deviation.
        stride_in_1x1: key of where blocks have their stride.
        freezing: keys and values by which parts of the detector are never trained.
    """

    format: str = "INPUT.FORMAT"
    mean: str = "MODEL.PIXEL_MEAN"
    std: str = "MODEL.PIXEL_STD"
    stride_in_1x1: str = "MODEL.RESNETS.STRIDE_IN_1X1"
    freezing: str = ""


# By the author that a file names, or that its format has.
TRAINED_WITH = {
    "torchvision": Images("RGB", RGB_MEAN, RGB_STD, False),
    "pycls": Images("BGR", RGB_MEAN[::-1], RGB_STD[::-1], False),
    "Caffe2": Images("BGR", RGB_MEAN[::-1], (1.0, 1.0, 1.0), True),
    "Detectron2 Model Zoo": Images("BGR", RGB_MEAN[::-1]),
}


def warn_of_images(
    source: str,
    author: str,
    state: Mapping[str, Any],
    model: nn.Module,
    images: Images,
    keys: ConfigKeys,
    trained: Images | None = None,
) -> None:
    """Warn where weights were trained on images that the config makes otherwise.

    Args:
        source: key and file of the weights, for the sentence.
        author: who made the file, as far as it is known.
        state: weights of the file, by its own names.
        model: detector or parts of one, with the ResNet whose strides count.
        images: how the config makes images.
        keys: names of the config's keys.
        trained: how the images were made that they were trained on; None finds it.
    """
    trained = trained or _trained_with(author, state)
    images = images._replace(stride_in_1x1=_stride_in_1x1(model))
    differing = [
        f"{getattr(keys, field)} is {_shown(ours)}, and they were trained with {_shown(theirs)}"
        for (field, ours), theirs in zip(images._asdict().items(), trained, strict=True)
        if ours is not None and theirs is not None and _differs(field, ours, theirs)
    ]
    if differing:
        whose = f"weights of {author}" if author else "weights"
        logger.warning("%s holds %s: %s", source, whose, "; ".join(differing))


def warn_of_frozen(source: str, absent: Collection[str], model: nn.Module, freezing: str) -> None:
    """Warn of what is never trained and was not loaded: it stays as it was drawn.

    Args:
        source: key and file of the initial weights, for the sentence.
        absent: names of the detector's weights that no file gave.
        model: detector that is trained.
        freezing: keys and values by which parts of the detector are never trained.
    """
    norms = [
        name
        for name, module in model.named_modules()
        if _is_frozen_norm(module) and f"{name}.weight" in absent
    ]
    fixed = [k for k, p in model.named_parameters() if not p.requires_grad and k in absent]
    parts = [
        f"{len(names)} {what} ({listed(names, 2)})"
        for what, names in (("weights", fixed), ("frozen batch norms", norms))
        if names
    ]
    if parts:
        logger.warning(
            "%s lacks what is never trained and stays as it was drawn, %s: %s",
            source,
            " and ".join(parts),
            freezing,
        )


def _is_frozen_norm(module: nn.Module) -> bool:
    """Whether it is Detectron2's, torchvision's or timm's norm of fixed statistics."""
    return type(module).__name__.startswith("FrozenBatchNorm")


def _trained_with(author: str, state: Mapping[str, Any]) -> Images:
    found = TRAINED_WITH.get(author, Images())
    if author == "Caffe2" and not _is_msra(state):  # whose ResNeXts are of several origins
        found = Images("BGR", RGB_MEAN[::-1])
    for field in ("mean", "std"):
        if f"pixel_{field}" in state:
            found = found._replace(**{field: state[f"pixel_{field}"].flatten().tolist()})
    return found


def _is_msra(state: Mapping[str, Any]) -> bool:
    """Whether Caffe2's weights are those of a ResNet with batch norms and no groups."""
    second = [x for name, x in state.items() if name.endswith("branch2b_w")]
    plain = all(x.shape[0] == x.shape[1] for x in second)
    return plain and not any(name.endswith("gn_s") for name in state)


def _stride_in_1x1(model: nn.Module) -> bool | None:
    strides = list(_strides(model))
    return strides[0] if strides else None


def _strides(model: nn.Module) -> Iterator[bool]:
    for block in model.modules():
        if isinstance(block, BottleneckBlock) and block.stride > 1:
            yield block.conv1.stride[0] > 1


def _differs(field: str, ours: Any, theirs: Any) -> bool:
    if field not in ("mean", "std"):
        return bool(ours != theirs)
    if len(ours) != len(theirs):
        return True
    pairs = list(zip(ours, theirs, strict=True))
    if field == "mean":
        return any(abs(a - b) > MEAN_TOLERANCE for a, b in pairs)
    return any(max(a, b) > STD_TOLERANCE * min(a, b) for a, b in pairs)


def _shown(value: Any) -> str:
    return str(value if isinstance(value, str | bool) else [round(x, 3) for x in value])
