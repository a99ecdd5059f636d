"""Small ResNets: basic blocks of any width under a feature pyramid.

Detectron2's own builder takes basic blocks of 64 channels only.
"""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet

from reviewkd_det.d2.backbone.pyramids import build_pyramid

__all__ = ["build_basic_resnet_fpn_backbone"]

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@BACKBONE_REGISTRY.register()
def build_basic_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a ResNet-18 or -34 with `RES2_OUT_CHANNELS` channels in its first stage, and an FPN.

    The channels double from stage to stage; the levels are p2 to p6 at strides 4 to 64. The keys
    are those of `build_resnet_fpn_backbone`: `MODEL.RESNETS`, `MODEL.FPN`, `MODEL.BACKBONE`.

    Raises:
        ValueError: `MODEL.RESNETS.DEPTH` is not 18 or 34.
    """
    settings = cfg.MODEL.RESNETS
    if settings.DEPTH not in BLOCKS:
        raise ValueError(
            f"MODEL.RESNETS.DEPTH must be 18 or 34 for basic blocks; got {settings.DEPTH}"
        )
    channels = settings.STEM_OUT_CHANNELS
    stem = BasicStem(input_shape.channels, channels, norm=settings.NORM)
    stages = []
    for index, count in enumerate(BLOCKS[settings.DEPTH]):
        width = settings.RES2_OUT_CHANNELS * 2**index
        stages.append(
            ResNet.make_stage(
                BasicBlock,
                count,
                in_channels=channels,
                out_channels=width,
                norm=settings.NORM,
                stride_per_block=[1 if index == 0 else 2] + [1] * (count - 1),
            )
        )
        channels = width
    bottom_up = ResNet(stem, stages, out_features=["res2", "res3", "res4", "res5"]).freeze(
        cfg.MODEL.BACKBONE.FREEZE_AT
    )
    return build_pyramid(cfg, bottom_up, ["res2", "res3", "res4", "res5"])
