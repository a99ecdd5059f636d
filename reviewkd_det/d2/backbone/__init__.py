"""Backbones that Detectron2 lacks; importing this package registers them."""

from reviewkd_det.d2.backbone.basic_resnet import build_basic_resnet_fpn_backbone
from reviewkd_det.d2.backbone.mobilenet_v2 import build_mobilenet_v2_fpn_backbone

__all__ = ["build_basic_resnet_fpn_backbone", "build_mobilenet_v2_fpn_backbone"]
