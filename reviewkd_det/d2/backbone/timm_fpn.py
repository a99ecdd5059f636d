"""Any network of timm or torchvision under a feature pyramid, by config alone."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone

from reviewkd_det.d2.backbone.feature_net import STRIDES, FeatureNet, level_name
from reviewkd_det.d2.backbone.networks import build_feature_net
from reviewkd_det.d2.backbone.pixels import warn_of_pixels
from reviewkd_det.d2.backbone.pyramids import build_pyramid, build_simple_pyramid
from reviewkd_det.d2.backbone.timm_nets import PATCH

__all__ = [
    "build_bottom_up",
    "build_retinanet_timm_fpn_backbone",
    "build_timm_fpn_backbone",
]


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Build the network `MODEL.TIMM.NAME` and a pyramid of levels p2 to p6, at strides 4 to 64.

    A network with maps of several resolutions gets an FPN, a plain vision transformer a
    SimpleFeaturePyramid. `MODEL.FPN` applies, where `IN_FEATURES` () takes res2 to res5, and
    `MODEL.BACKBONE.FREEZE_AT`, see `build_feature_net`.

    Raises:
        FileNotFoundError: the weights are out of reach.
        ImportError: timm or a package of weights is not installed.
        KeyError: no network has this name.
        ValueError: a key has a value that does not apply, or the network does not give such maps
            of images of any size.
    """
    return _build(cfg, input_shape, p6p7=False)


@BACKBONE_REGISTRY.register()
def build_retinanet_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Build the network `MODEL.TIMM.NAME` and a pyramid of levels p3 to p7, at strides 8 to 128.

    See `build_timm_fpn_backbone`; `MODEL.FPN.IN_FEATURES` () takes res3 to res5.
    """
    return _build(cfg, input_shape, p6p7=True)


def build_bottom_up(cfg: CfgNode, input_shape: ShapeSpec, *, p6p7: bool) -> FeatureNet:
    """Build the network `MODEL.TIMM.NAME` with the maps that a pyramid needs.

    Args:
        cfg: config whose keys apply.
        input_shape: shape of the images.
        p6p7: whether the pyramid is RetinaNet's, which begins at stride 8.
    """
    name = cfg.MODEL.TIMM.NAME
    if input_shape.channels != 3:
        raise ValueError(
            f"MODEL.PIXEL_MEAN must have 3 numbers for {name}, which takes images of 3 channels; "
            f"got {input_shape.channels}"
        )
    # What is loaded as a whole afterwards needs nothing at its beginning.
    weights = "" if cfg.MODEL.WEIGHTS else cfg.MODEL.TIMM.WEIGHTS
    bottom_up = build_feature_net(
        name,
        weights,
        cfg.MODEL.TIMM.NORM,
        cfg.MODEL.BACKBONE.FREEZE_AT,
        cfg.MODEL.FPN.IN_FEATURES or [level_name(x) for x in STRIDES[p6p7:]],
        cfg.MODEL.TIMM.WEIGHTS_ENTRY,
    )
    if weights:
        warn_of_pixels(cfg, bottom_up)
    return bottom_up


def _build(cfg: CfgNode, input_shape: ShapeSpec, *, p6p7: bool) -> Backbone:
    bottom_up = build_bottom_up(cfg, input_shape, p6p7=p6p7)
    names = list(bottom_up.output_shape())
    if not bottom_up.is_plain:
        return build_pyramid(cfg, bottom_up, names, p6p7=p6p7)
    if bottom_up.size_divisibility != PATCH:
        raise ValueError(
            f"MODEL.TIMM.NAME must be a transformer of patches of {PATCH} pixels, or such as are "
            f"resampled to that; got {cfg.MODEL.TIMM.NAME} of {bottom_up.size_divisibility}"
        )
    return build_simple_pyramid(cfg, bottom_up, names[0], p6p7=p6p7)
