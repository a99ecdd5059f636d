"""MobileNetV2 under a feature pyramid: torchvision's network, read at four resolutions.

Shapes: images (N, 3, H, W); the level of stride s is (N, C, ceil(H / s), ceil(W / s)).
"""

from functools import partial

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone import FPN
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from reviewkd_det.d2.backbone.pyramids import build_pyramid

__all__ = ["MobileNetV2", "build_mobilenet_v2_fpn_backbone"]

# Index in torchvision's `features` of the last block at strides 4, 8, 16 and 32; 0 is the stem.
LAST_BLOCKS = {"res2": 3, "res3": 6, "res4": 13, "res5": 17}
# Number of blocks that MODEL.BACKBONE.FREEZE_AT 0, 1, 2 ... freezes.
FROZEN_BLOCKS = [0, 1, *(last + 1 for last in LAST_BLOCKS.values())]
NORMS = ("FrozenBN", "BN", "SyncBN")


class MobileNetV2(Backbone):
    """torchvision's MobileNetV2 of width 1, without its last 1x1 convolution and classifier.

    Its levels are res2 to res5, named as a ResNet's, at strides 4, 8, 16, 32 with 24, 32, 96, 320
    channels. The state dict's names are torchvision's (`features.N ...`).

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
    arXiv:1801.04381.

    Args:
        norm: "FrozenBN" (fixed statistics and affine parameters), "BN" or "SyncBN".
    """

    def __init__(self, norm: str = "FrozenBN") -> None:
        super().__init__()
        blocks = mobilenet_v2(norm_layer=partial(get_norm, norm)).features
        self.features: nn.Sequential = blocks[: LAST_BLOCKS["res5"] + 1]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the four levels by name, from high to low resolution."""
        levels = {}
        names = {last: name for name, last in LAST_BLOCKS.items()}
        features = images
        for index, block in enumerate(self.features):
            features = block(features)
            if index in names:
                levels[names[index]] = features
        return levels

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each level."""
        return {
            name: ShapeSpec(channels=self.features[last].out_channels, stride=4 * 2**index)
            for index, (name, last) in enumerate(LAST_BLOCKS.items())
        }

    def freeze(self, count: int) -> "MobileNetV2":
        """Fix the parameters and the norms of the first `count` blocks; returns itself."""
        for block in self.features[:count]:
            block.requires_grad_(False)
            FrozenBatchNorm2d.convert_frozen_batchnorm(block)  # replaces the norms inside
        return self


@BACKBONE_REGISTRY.register()
def build_mobilenet_v2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a MobileNetV2 and an FPN of levels p2 to p6, at strides 4 to 64.

    The keys are those of Detectron2's ResNets, as far as they apply: `MODEL.RESNETS.NORM` is the
    norm of MobileNetV2 too; `MODEL.BACKBONE.FREEZE_AT` 0 freezes nothing, 1 the stem, 2 to 5 also
    res2 to res5; `MODEL.FPN.OUT_CHANNELS`, `NORM` and `FUSE_TYPE`.

    Raises:
        ValueError: one of these keys has a value that does not apply, or images do not have three
            channels.
    """
    norm, freeze_at = cfg.MODEL.RESNETS.NORM, cfg.MODEL.BACKBONE.FREEZE_AT
    if norm not in NORMS:
        raise ValueError(
            f"MODEL.RESNETS.NORM must be {', '.join(NORMS)} for MobileNetV2; got '{norm}'"
        )
    if not 0 <= freeze_at < len(FROZEN_BLOCKS):
        raise ValueError(
            f"MODEL.BACKBONE.FREEZE_AT must be 0 to {len(FROZEN_BLOCKS) - 1}; got {freeze_at}"
        )
    if input_shape.channels != 3:
        raise ValueError(
            "MODEL.PIXEL_MEAN must have 3 numbers for MobileNetV2, which takes images of 3 "
            f"channels; got {input_shape.channels}"
        )
    return build_pyramid(cfg, MobileNetV2(norm).freeze(FROZEN_BLOCKS[freeze_at]), list(LAST_BLOCKS))
