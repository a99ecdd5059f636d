"""What is checked of a run's data before anything is built."""

import difflib
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from reviewkd_det.core import Need, find_method
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.data import check_evaluable
from reviewkd_det.d2.data.keypoint_checks import (
    check_keypoint_objects,
    check_keypoints,
    check_sigmas,
)
from reviewkd_det.d2.data.prepare import prepare_data, refuse_folders
from reviewkd_det.d2.data.same_size import checked_batch
from reviewkd_det.d2.data.semantic import check_semantic
from reviewkd_det.d2.data.yaml_use import read_use
from reviewkd_det.d2.evaluators import check_packages, results_of
from reviewkd_det.d2.labels.settings import KEY as LABELS
from reviewkd_det.d2.labels.settings import read_settings

__all__ = ["check_class_count", "check_classes", "check_data", "check_known"]

ADVICE = (
    "name your own in DATASETS.COCO_FORMAT, VOC_FORMAT or YOLO_FORMAT, or the code that registers "
    "it in MODULES"
)
CLASS_KEYS = {
    "GeneralizedRCNN": ("ROI_HEADS", "NUM_CLASSES"),
    "PanopticFPN": ("ROI_HEADS", "NUM_CLASSES"),
    "RetinaNet": ("RETINANET", "NUM_CLASSES"),
}


def check_data(cfg: CfgNode, *, training: bool, resume: bool = False) -> list[str] | None:
    """Check before anything is built that the data sets are known, whole and can be evaluated.

    Args:
        cfg: config of the run.
        training: whether the run trains, and does not only evaluate.
        resume: whether it goes on with the run of its folder.

    Returns:
        The class names in the order of the model's class numbers; None where none are known.

    Raises:
        KeyError: a data set has no such name.
        ValueError: none is named, a file cannot be evaluated, or see `prepare_data`.
    """
    wanted = {"DATASETS.TEST": cfg.DATASETS.TEST}
    if training:
        wanted["DATASETS.TRAIN"] = cfg.DATASETS.TRAIN
        wanted["DATASETS.UNLABELED"] = cfg.DATASETS.UNLABELED
        wanted[f"{LABELS}.CALIBRATION"] = cfg.MODEL.DISTILL.TEACHER_LABELS.CALIBRATION
    use = read_use(cfg, training=training, resume=resume)
    refuse_folders(use)
    for key, names in wanted.items():
        if not names and (key == "DATASETS.TRAIN" or not training):
            raise ValueError(f"{key} must name a data set; got none")
        check_known(key, names, ADVICE)
        for name in names:
            check_packages(cfg, name, evaluate=key == "DATASETS.TEST")
    if training:
        _check_unlabeled(cfg)
    checked_batch(cfg.TEST.IMS_PER_BATCH)
    results = {name: results_of(cfg, name) for name in cfg.DATASETS.TEST}
    classes = prepare_data(use)
    for name in cfg.DATASETS.TEST:
        check_evaluable(name, with_masks=cfg.MODEL.MASK_ON)
    check_classes(cfg, [*(cfg.DATASETS.TRAIN if training else ()), *cfg.DATASETS.TEST])
    check_semantic(cfg, [name for name in results if "sem_seg" in results[name]])
    _check_keypoints(cfg, results)
    if training:
        check_semantic(cfg, cfg.DATASETS.TRAIN, most=200)
    return classes


def _check_keypoints(cfg: CfgNode, results: dict[str, dict[str, str]]) -> None:
    """Data sets that are evaluated for keypoints must have those of the config."""
    if cfg.MODEL.KEYPOINT_ON:
        judged = [name for name in results if "keypoints" in results[name]]
        check_keypoints(cfg, judged)
        check_sigmas(cfg, judged)
        count = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
        for name in judged:
            check_keypoint_objects(DatasetCatalog.get(name), count)


def _check_unlabeled(cfg: CfgNode) -> None:
    count, methods = cfg.SOLVER.UNLABELED_PER_BATCH, cfg.MODEL.DISTILL.METHODS
    if read_settings(cfg) is not None:
        return  # every method takes images with labels
    if count and not cfg.DATASETS.UNLABELED:
        raise ValueError(
            f"SOLVER.UNLABELED_PER_BATCH must be 0 without DATASETS.UNLABELED; got {count}"
        )
    needs = {name: find_method(name, "MODEL.DISTILL.METHODS").needs for name in methods}
    if cfg.DATASETS.UNLABELED and methods and Need.LEVELS not in needs.values():
        raise ValueError(
            "MODEL.DISTILL.METHODS must have one that needs levels alone, and so no labels, with "
            f"DATASETS.UNLABELED; got {', '.join(methods)}"
        )


def check_classes(cfg: CfgNode, dataset_names: Sequence[str]) -> None:
    """Check that loaded data sets have as many classes as the student.

    Raises:
        ValueError: one has another number.
    """
    if keys := CLASS_KEYS.get(plain_config(cfg).MODEL.META_ARCHITECTURE):
        check_class_count(f"MODEL.{'.'.join(keys)}", cfg.MODEL[keys[0]][keys[1]], dataset_names)


def check_class_count(key: str, count: int, dataset_names: Sequence[str]) -> None:
    """Check that loaded data sets have as many classes as a key says.

    Args:
        key: name of the config key.
        count: value of the key.
        dataset_names: names of the data sets; one whose classes are not known is not checked.

    Raises:
        ValueError: one has another number.
    """
    for name in dataset_names:
        classes = MetadataCatalog.get(name).get("thing_classes")
        if classes is not None and count != len(classes):
            raise ValueError(
                f"{key} must be the number of classes of '{name}', {len(classes)}; got {count}"
            )


def check_known(key: str, dataset_names: Sequence[str], advice: str) -> None:
    """Check that Detectron2 knows data sets.

    Args:
        key: name of the config key that names them.
        dataset_names: names of the data sets.
        advice: what to do about an unknown one.

    Raises:
        KeyError: one is unknown.
    """
    for name in dataset_names:
        if name not in DatasetCatalog.list():
            near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3, cutoff=0.0)
            raise KeyError(
                f"{key} must name registered data sets; got '{name}'; the nearest are "
                f"{', '.join(near)}; {advice}"
            )
