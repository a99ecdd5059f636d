"""Backbones that Detectron2 lacks; importing this package registers them."""

from reviewkd_det.d2.backbone.basic_resnet import build_basic_resnet_fpn_backbone

__all__ = ["build_basic_resnet_fpn_backbone"]
