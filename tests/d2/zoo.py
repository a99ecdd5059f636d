"""Detectron2's other detectors at the size of `tiny`, and a batch that all can learn from."""

import torch
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.structures import Keypoints

from tests.d2 import tiny

MEAN, STD = [103.53, 116.28, 123.675], [57.375, 57.12, 58.395]
KEYPOINTS = 3
STUFF = 4
SEM_SEG_HEAD = {"NUM_CLASSES": STUFF, "CONVS_DIM": 8, "NORM": "BN", "IGNORE_VALUE": 255}

CASCADE_R_CNN = tiny.merged(
    tiny.R_CNN,
    {"ROI_HEADS": {"NAME": "CascadeROIHeads"}, "ROI_BOX_HEAD": {"CLS_AGNOSTIC_BBOX_REG": True}},
)
KEYPOINT_R_CNN = tiny.merged(
    tiny.R_CNN,
    {
        "KEYPOINT_ON": True,
        "ROI_KEYPOINT_HEAD": {"NUM_KEYPOINTS": KEYPOINTS, "CONV_DIMS": [8], "POOLER_RESOLUTION": 7},
    },
)
PANOPTIC_FPN = tiny.merged(
    tiny.R_CNN,
    {"META_ARCHITECTURE": "PanopticFPN", "MASK_ON": True, "SEM_SEG_HEAD": SEM_SEG_HEAD},
)
SEMANTIC_SEGMENTOR = tiny.merged(
    tiny.R_CNN, {"META_ARCHITECTURE": "SemanticSegmentor", "SEM_SEG_HEAD": SEM_SEG_HEAD}
)
RETINANET = tiny.merged(  # untrained, no score passes the default
    tiny.RETINANET, {"RETINANET": {"SCORE_THRESH_TEST": 0.0}}
)
PROPOSAL_NETWORK = tiny.merged(tiny.R_CNN, {"META_ARCHITECTURE": "ProposalNetwork"})
C4_R_CNN = tiny.merged(
    tiny.R_CNN,
    {
        "BACKBONE": {"NAME": "build_resnet_backbone"},
        "RESNETS": {"OUT_FEATURES": ["res4"]},
        "RPN": {"IN_FEATURES": ["res4"]},
        "ANCHOR_GENERATOR": {"SIZES": [[16, 32, 64]]},
        "ROI_HEADS": {"NAME": "Res5ROIHeads", "IN_FEATURES": ["res4"]},
        "ROI_BOX_HEAD": {"NAME": "", "NUM_FC": 0, "POOLER_RESOLUTION": 6},
    },
)


def extra(model, **sections):
    """The sections of a config tree that must come after the sizes `tiny.detector` sets."""
    own = {"RESNETS": model["RESNETS"]} if "RESNETS" in model else {}
    return {"MODEL": tiny.merged(own, sections)}


def resnet(width):
    """A ResNet of one basic block per stage, built without a config."""
    stages = [
        ResNet.make_stage(
            BasicBlock,
            num_blocks=1,
            in_channels=width * max(1, 2 ** (i - 1)),
            out_channels=width * 2**i,
            stride=1 if i == 0 else 2,
            norm="BN",
        )
        for i in range(4)
    ]
    names = ["res2", "res3", "res4", "res5"]
    return ResNet(BasicStem(out_channels=width, norm="BN"), stages, out_features=names)


def fpn(width, pyramid, in_features=("res3", "res4", "res5"), top_block=None):
    """A pyramid over `resnet`."""
    return FPN(resnet(width), in_features, pyramid, top_block=top_block)


def fcos_backbone(width, pyramid):
    """FCOS's pyramid, p3 to p7."""
    return fpn(width, pyramid, top_block=LastLevelP6P7(pyramid, pyramid, in_feature="p5"))


def fcos(backbone):
    """FCOS, which Detectron2 builds from a Python config alone."""
    levels = list(backbone.output_shape().values())
    head = FCOSHead(input_shape=levels, num_classes=tiny.CLASSES, conv_dims=[levels[0].channels])
    return FCOS(
        backbone=backbone,
        head=head,
        num_classes=tiny.CLASSES,
        test_score_thresh=0.0,  # untrained, no score passes the default
        pixel_mean=MEAN,
        pixel_std=STD,
    )


def batch(**kwargs):
    """The images of `tiny.batch` with masks, keypoints and a semantic map, in part to ignore."""
    inputs = tiny.batch(masks=True, **kwargs)
    for x in inputs:
        instances = x["instances"]
        corners = instances.gt_boxes.tensor.view(-1, 2, 2)
        points = torch.cat([corners, corners.mean(1, keepdim=True)], 1)  # (objects, 3, 2)
        visible = torch.tensor([2.0, 1.0, 2.0]).view(1, KEYPOINTS, 1).expand(len(points), -1, -1)
        instances.gt_keypoints = Keypoints(torch.cat([points, visible], 2))
        sem_seg = torch.arange(x["width"]).div(20, rounding_mode="floor") % STUFF
        x["sem_seg"] = sem_seg.expand(x["height"], -1).clone()
        x["sem_seg"][:10] = SEM_SEG_HEAD["IGNORE_VALUE"]
    return inputs
