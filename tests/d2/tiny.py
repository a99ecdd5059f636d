"""Detectors small enough for a step in well under a second, and the data they need."""

from pathlib import Path

import torch
import yaml
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances

from reviewkd_det.d2.config import load_config

CLASSES = 3
R_CNN = {
    "META_ARCHITECTURE": "GeneralizedRCNN",
    "BACKBONE": {"NAME": "build_resnet_fpn_backbone", "FREEZE_AT": 0},
    "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"]},
    "RPN": {
        "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
        "POST_NMS_TOPK_TRAIN": 50,
        "BATCH_SIZE_PER_IMAGE": 16,
    },
    "ANCHOR_GENERATOR": {"SIZES": [[8], [16], [32], [64], [128]]},
    "ROI_HEADS": {
        "NAME": "StandardROIHeads",
        "IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "NUM_CLASSES": CLASSES,
        "BATCH_SIZE_PER_IMAGE": 8,
    },
    "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 1, "FC_DIM": 16},
    "ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 1, "CONV_DIM": 8},
}
RETINANET = {
    "META_ARCHITECTURE": "RetinaNet",
    "BACKBONE": {"NAME": "build_retinanet_resnet_fpn_backbone", "FREEZE_AT": 0},
    "FPN": {"IN_FEATURES": ["res3", "res4", "res5"]},
    "RETINANET": {"NUM_CLASSES": CLASSES, "NUM_CONVS": 1},
    "ANCHOR_GENERATOR": {"SIZES": [[16], [32], [64], [128], [256]]},
}


def merged(*trees):
    """Nested dictionaries, later over earlier."""
    result = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def detector(model, *, width, pyramid, **extra):
    """A config tree: a ResNet-50 of this width under a pyramid of this many channels."""
    sizes = {
        "DEVICE": "cpu",
        "RESNETS": {
            "DEPTH": 50,
            "NORM": "BN",
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
            "RES2_OUT_CHANNELS": width,
            "STEM_OUT_CHANNELS": width,
            "WIDTH_PER_GROUP": width,
        },
        "FPN": {"OUT_CHANNELS": pyramid},
    }
    return merged({"VERSION": 2, "MODEL": merged(model, sizes)}, extra)


def write(path: Path, tree: dict) -> Path:
    """Write a config tree as YAML."""
    path.write_text(yaml.safe_dump(tree))
    return path


def save_teacher(folder: Path, model=R_CNN, **extra) -> Path:
    """A teacher's config and checkpoint in a folder; returns the config's path."""
    tree = detector(model, width=8, pyramid=24, **extra)
    config = write(folder / "teacher.yaml", tree)
    torch.manual_seed(7)
    teacher = build_model(load_config(config))
    for module in teacher.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # one pass sets the running statistics, so features stay small
    teacher.backbone.train()(70 * torch.randn(4, 3, 64, 96))  # pixel values
    torch.save({"model": teacher.state_dict()}, folder / "teacher.pth")
    tree["MODEL"]["WEIGHTS"] = str(folder / "teacher.pth")
    return write(config, tree)


def save_student(folder: Path, model=R_CNN, distill=None, **extra) -> Path:
    """A distilled student's config beside its teacher's; returns its path."""
    tree = detector(model, width=4, pyramid=8, **extra)
    student = tree["MODEL"]["META_ARCHITECTURE"]
    tree["MODEL"]["META_ARCHITECTURE"] = "DistilledDetector"
    defaults = {
        "STUDENT_META_ARCHITECTURE": student,
        # Named, so that a test sees the same numbers on every processor.
        "TEACHER": {"CONFIG_FILE": "teacher.yaml", "PRECISION": "float32"},
        "REVIEWKD": {"MID_CHANNELS": 12},
    }
    tree["MODEL"]["DISTILL"] = merged(defaults, distill or {})
    return write(folder / "student.yaml", tree)


def batch(*, masks=False, sizes=((64, 96), (50, 70))):
    """Two images with two objects each."""
    generator = torch.Generator().manual_seed(3)
    inputs = []
    for height, width in sizes:
        instances = Instances((height, width))
        boxes = torch.tensor([[4.0, 6.0, 30.0, 40.0], [20.0, 10.0, 60.0, 44.0]])
        instances.gt_boxes = Boxes(boxes)
        instances.gt_classes = torch.tensor([0, 2])
        if masks:
            bitmaps = torch.zeros(2, height, width, dtype=torch.bool)
            for bitmap, (x1, y1, x2, y2) in zip(bitmaps, boxes.int().tolist(), strict=True):
                bitmap[y1:y2, x1:x2] = True
            instances.gt_masks = BitMasks(bitmaps)
        image = torch.randint(0, 256, (3, height, width), generator=generator).to(torch.uint8)
        inputs.append({"image": image, "instances": instances, "height": height, "width": width})
    return inputs
