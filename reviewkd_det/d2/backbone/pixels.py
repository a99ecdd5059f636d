"""How the networks of libraries are to see images: mean, standard deviation, channel order."""

from collections.abc import Collection

from detectron2.config import CfgNode
from torch import nn

from reviewkd_det.common.weights.pixels import library_pixels
from reviewkd_det.d2.backbone.networks import TORCHVISION
from reviewkd_det.d2.weights.cautions import ConfigKeys, Images, warn_of_images

__all__ = ["pixels_of", "set_pixels", "warn_of_pixels"]

FORMAT, MEAN, STD = "INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"


def pixels_of(name: str) -> Images:
    """How a network of timm, or of torchvision as `torchvision/NAME`, is to see images.

    Raises:
        ImportError: timm is not installed.
    """
    library = "torchvision" if name.startswith(TORCHVISION) else "timm"
    mean, std = library_pixels(library, name.removeprefix(TORCHVISION))
    return Images("RGB", [255 * x for x in mean], [255 * x for x in std])


def set_pixels(cfg: CfgNode, given: Collection[str]) -> None:
    """Let a config make images as its network of timm or torchvision is to see them.

    Args:
        cfg: changed in place: of the keys of channel order, mean and standard deviation those that
            are not given.
        given: dotted names of keys that the user gave.
    """
    own = pixels_of(cfg.MODEL.TIMM.NAME)
    assert own.mean is not None
    assert own.std is not None
    if FORMAT not in given:
        cfg.INPUT.FORMAT = own.format
    step = -1 if cfg.INPUT.FORMAT == "BGR" else 1
    if MEAN not in given:
        cfg.MODEL.PIXEL_MEAN = [round(x, 3) for x in own.mean[::step]]
    if STD not in given:
        cfg.MODEL.PIXEL_STD = [round(x, 3) for x in own.std[::step]]


def warn_of_pixels(cfg: CfgNode, network: nn.Module) -> None:
    """Warn where a config makes images otherwise than its trained network is to see them."""
    name, weights = cfg.MODEL.TIMM.NAME, cfg.MODEL.TIMM.WEIGHTS
    warn_of_images(
        f"MODEL.TIMM.WEIGHTS '{weights}'",
        name,
        {},
        network,
        Images(cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD),
        ConfigKeys(),
        trained=pixels_of(name),
    )
