"""Data for Detectron2: checked files and images, and training batches in a fixed order."""

from reviewkd_det.d2.data.coco_format import load_coco_format
from reviewkd_det.d2.data.image_folder import load_image_folder, register_image_folder
from reviewkd_det.d2.data.mapper import CheckedDatasetMapper, find_upright
from reviewkd_det.d2.data.register import (
    check_evaluable,
    register_coco_format,
    use_for_builtin_coco,
)
from reviewkd_det.d2.data.stream import StreamLoader
from reviewkd_det.d2.data.training import JoinedLoader, build_train_loader
from reviewkd_det.d2.data.voc_format import register_voc_format
from reviewkd_det.d2.data.yolo_format import register_yolo_format

__all__ = [
    "CheckedDatasetMapper",
    "JoinedLoader",
    "StreamLoader",
    "build_train_loader",
    "check_evaluable",
    "find_upright",
    "load_coco_format",
    "load_image_folder",
    "register_coco_format",
    "register_image_folder",
    "register_voc_format",
    "register_yolo_format",
    "use_for_builtin_coco",
]
