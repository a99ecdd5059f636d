"""The maps of a trained network as levels, without a pyramid: a teacher that never saw a box."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor
from torch.nn import functional as F

from reviewkd_det.d2.backbone.feature_net import STRIDES, FeatureNet
from reviewkd_det.d2.backbone.timm_fpn import build_bottom_up

__all__ = ["NetworkLevels", "build_timm_levels_backbone"]


class NetworkLevels(Backbone):
    """The maps of a network, named as those of a pyramid: p2 at stride 4 to p5 at stride 32.

    Of a plain transformer, which has a map of one resolution, the levels are that map resized:
    bilinearly to finer ones, by averages to coarser ones.

    Args:
        net: the network.
    """

    def __init__(self, net: FeatureNet) -> None:
        super().__init__()
        self.net = net
        self.shapes = {f"p{k.removeprefix('res')}": x for k, x in net.output_shape().items()}
        if net.is_plain:
            (shape,) = self.shapes.values()
            self.shapes = {
                f"p{x.bit_length() - 1}": ShapeSpec(channels=shape.channels, stride=x)
                for x in STRIDES
            }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the levels by name, from high to low resolution."""
        maps = list(self.net(images).values())
        if not self.net.is_plain:
            return dict(zip(self.shapes, maps, strict=True))
        return {
            name: _resized(maps[0], self.net.size_divisibility, shape.stride)
            for name, shape in self.shapes.items()
        }

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each level."""
        return self.shapes

    @property
    def size_divisibility(self) -> int:
        """The stride of the coarsest level."""
        return max(shape.stride for shape in self.shapes.values())


@BACKBONE_REGISTRY.register()
def build_timm_levels_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> NetworkLevels:
    """Build the network `MODEL.TIMM.NAME` as a backbone without a pyramid.

    Its trained weights, `MODEL.TIMM.WEIGHTS`, make it the teacher of a student's pyramid; see
    `BackboneOnly`.

    Raises:
        ValueError: see `build_timm_fpn_backbone`.
    """
    return NetworkLevels(build_bottom_up(cfg, input_shape, p6p7=False))


def _resized(level: Tensor, stride: int, wanted: int) -> Tensor:
    if wanted >= stride:
        return F.avg_pool2d(level, wanted // stride) if wanted > stride else level
    resized: Any = F.interpolate(
        level, scale_factor=stride / wanted, mode="bilinear", align_corners=False
    )
    return resized
