"""FCOS with ResNet-18, taught by Detectron2's RetinaNet R101-FPN 3x on the levels p3 to p7.

python tools/lazyconfig_train_net.py --config-file configs/lazy/retinanet_r101_fcos_r18.py
An example: no result or loss weight is published for this pair.
"""

import torch
from detectron2.config import LazyCall as L
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import transforms as T
from detectron2.evaluation import COCOEvaluator
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import FPN, BasicStem, ResNet
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import MultiStepParamScheduler

from reviewkd_det.d2 import DistilledDetector
from reviewkd_det.d2.data import CheckedDatasetMapper
from reviewkd_det.d2.teacher.build import TeacherLoader

model = L(DistilledDetector)(
    student=L(FCOS)(
        backbone=L(FPN)(
            bottom_up=L(ResNet)(
                stem=L(BasicStem)(in_channels=3, out_channels=64, norm="FrozenBN"),
                stages=L(ResNet.make_default_stages)(depth=18, norm="FrozenBN"),
                out_features=["res3", "res4", "res5"],
                freeze_at=2,
            ),
            in_features=["res3", "res4", "res5"],
            out_channels=256,
            top_block=L(LastLevelP6P7)(in_channels=512, out_channels=256),
        ),
        head=L(FCOSHead)(
            input_shape=[ShapeSpec(channels=256)] * 5,
            num_classes="${..num_classes}",
            conv_dims=[256] * 4,
            norm="GN",
        ),
        head_in_features=["p3", "p4", "p5", "p6", "p7"],
        num_classes=80,
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    ),
    teacher=L(TeacherLoader)(
        config_file="COCO-Detection/retinanet_R_101_FPN_3x.yaml",
        weights="",
        opts=[],
        student_format="RGB",
    ),
    methods={"ReviewKD": {"mid_channels": 256, "loss_weight": 1.0}},
)

dataloader = {
    "train": L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names="coco_2017_train"),
        mapper=L(CheckedDatasetMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(
                    short_edge_length=[640, 672, 704, 736, 768, 800],
                    sample_style="choice",
                    max_size=1333,
                ),
                L(T.RandomFlip)(horizontal=True),
            ],
            image_format="RGB",
        ),
        total_batch_size=8,
        num_workers=4,
    ),
    "test": L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names="coco_2017_val", filter_empty=False),
        mapper=L(CheckedDatasetMapper)(
            is_train=False,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
            image_format="${...train.mapper.image_format}",
        ),
        num_workers=4,
    ),
    "evaluator": L(COCOEvaluator)(dataset_name="${..test.dataset.names}", output_dir=None),
}

optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0),
    lr=0.005,
    momentum=0.9,
    weight_decay=1e-4,
)
lr_multiplier = L(WarmupParamScheduler)(
    scheduler=L(MultiStepParamScheduler)(
        values=[1.0, 0.1, 0.01], milestones=[120000, 160000], num_updates="${train.max_iter}"
    ),
    warmup_length=1000 / 180000,
    warmup_factor=0.001,
)
train = {
    "output_dir": "output/retinanet_r101_fcos_r18",
    "init_checkpoint": "torchvision://ResNet18_Weights.IMAGENET1K_V1",
    "max_iter": 180000,
    "amp": {"enabled": False},
    "ddp": {"broadcast_buffers": False},
    "checkpointer": {"period": 5000, "max_to_keep": 10},
    "eval_period": 5000,
    "log_period": 20,
    "device": "cuda",
    "seed": -1,
}
