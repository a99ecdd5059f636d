"""Feature pyramids over any bottom-up network: FPN, and SimpleFeaturePyramid for plain ViTs."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid

from reviewkd_det.d2.backbone.feature_net import STRIDES

__all__ = ["build_pyramid", "build_simple_pyramid"]


class PaddedSimplePyramid(SimpleFeaturePyramid):
    """A simple pyramid that says, as an FPN does, by what its images' sides are to be divisible."""

    @property
    def size_divisibility(self) -> int:
        """The stride of the coarsest level but the top ones."""
        return STRIDES[-1]

    @property
    def padding_constraints(self) -> dict[str, int]:
        """What Detectron2 asks for as well, where it knows of squares."""
        return {"square_size": 0}


def build_pyramid(
    cfg: CfgNode, bottom_up: Backbone, in_features: Sequence[str], *, p6p7: bool = False
) -> FPN:
    """Build an FPN.

    Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, arXiv:1612.03144.

    Args:
        cfg: `MODEL.FPN.OUT_CHANNELS`, `NORM` and `FUSE_TYPE` apply.
        bottom_up: network with a map of each resolution.
        in_features: names of its maps, from high to low resolution.
        p6p7: whether two more levels come from the coarsest map, as RetinaNet's, instead of one
            that is the coarsest level subsampled.
    """
    channels, coarsest = cfg.MODEL.FPN.OUT_CHANNELS, in_features[-1]
    top = LastLevelMaxPool()
    if p6p7:
        top = LastLevelP6P7(bottom_up.output_shape()[coarsest].channels, channels, coarsest)
    return FPN(
        bottom_up=bottom_up,
        in_features=list(in_features),
        out_channels=channels,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def build_simple_pyramid(
    cfg: CfgNode, net: Backbone, in_feature: str, *, p6p7: bool = False
) -> SimpleFeaturePyramid:
    """Build the pyramid of a plain transformer from its last map.

    Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022,
    arXiv:2203.16527, section 3.

    Args:
        cfg: `MODEL.FPN.OUT_CHANNELS` and `NORM` apply; a norm of "" is the layer norm of the paper.
        net: network with a map of one resolution.
        in_feature: the map's name.
        p6p7: see `build_pyramid`; the levels then begin at stride 8.
    """
    stride, channels = net.output_shape()[in_feature].stride, cfg.MODEL.FPN.OUT_CHANNELS
    return PaddedSimplePyramid(
        net,
        in_feature,
        channels,
        [stride / x for x in STRIDES[p6p7:]],
        LastLevelP6P7(channels, channels, "p5") if p6p7 else LastLevelMaxPool(),
        cfg.MODEL.FPN.NORM or "LN",
    )
