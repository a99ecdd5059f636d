"""Backbones that Detectron2 lacks; importing this package registers them."""

from reviewkd_det.d2.backbone.basic_resnet import build_basic_resnet_fpn_backbone
from reviewkd_det.d2.backbone.levels import build_timm_levels_backbone
from reviewkd_det.d2.backbone.mobilenet_v2 import build_mobilenet_v2_fpn_backbone
from reviewkd_det.d2.backbone.timm_fpn import (
    build_retinanet_timm_fpn_backbone,
    build_timm_fpn_backbone,
)

__all__ = [
    "BUILDERS",
    "build_basic_resnet_fpn_backbone",
    "build_mobilenet_v2_fpn_backbone",
    "build_retinanet_timm_fpn_backbone",
    "build_timm_fpn_backbone",
    "build_timm_levels_backbone",
]

# Names of those that build MODEL.TIMM.NAME.
BUILDERS = tuple(
    builder.__name__
    for builder in (
        build_timm_fpn_backbone,
        build_retinanet_timm_fpn_backbone,
        build_timm_levels_backbone,
    )
)
