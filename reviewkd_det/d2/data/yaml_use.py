"""How a YAML config uses its data, and which classes that data has."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import build_augmentation

from reviewkd_det.common.runs.record import saved_classes
from reviewkd_det.d2.backbone_only import is_backbone_only
from reviewkd_det.d2.data.coco_checks import read_coco_file
from reviewkd_det.d2.data.data_use import DataKeys, DataUse
from reviewkd_det.d2.data.voc_format import voc_classes
from reviewkd_det.d2.data.yolo_files import class_names, read_data_yaml
from reviewkd_det.d2.labels.settings import read_settings

__all__ = [
    "data_classes",
    "known_classes",
    "read_use",
    "registered_classes",
    "training_classes",
]

CLASSLESS = ("ProposalNetwork",)


def read_use(cfg: CfgNode, *, training: bool, resume: bool) -> DataUse:
    """How a run of this config uses its data.

    Args:
        cfg: config of the run.
        training: whether the run trains, and does not only evaluate.
        resume: whether it goes on with the run of its folder.
    """
    known, whose = None, ""
    train, unlabeled = cfg.DATASETS.TRAIN, cfg.DATASETS.UNLABELED
    keys = DataKeys()
    if is_backbone_only(cfg):  # which needs no labels
        train, unlabeled = (), (*train, *unlabeled)
        keys = replace(keys, unlabeled="DATASETS.TRAIN or UNLABELED")
    if training and resume:
        known, whose = saved_classes(cfg.OUTPUT_DIR), f"the run in '{cfg.OUTPUT_DIR}'"
    elif not training:
        known, whose = known_classes(cfg)
    return DataUse(
        train=train if training else (),
        test=cfg.DATASETS.TEST,
        unlabeled=unlabeled if training and _uses_unlabeled(cfg) else (),
        folder=cfg.OUTPUT_DIR,
        calibration=_calibration(cfg) if training else (),
        check=cfg.DATASETS.CHECK,
        map_classes=cfg.DATASETS.MAP_CLASSES,
        has_classes=_architecture(cfg) not in CLASSLESS,
        masks=cfg.MODEL.MASK_ON,
        mask_format=cfg.INPUT.MASK_FORMAT,
        keypoints=cfg.MODEL.KEYPOINT_ON,
        train_resizes=build_augmentation(cfg, True),
        test_resizes=build_augmentation(cfg, False),
        known_classes=known,
        known_whose=whose,
        keys=keys,
    )


def _calibration(cfg: CfgNode) -> list[str]:
    """Data sets whose labels tell from which score on a teacher is right, where that is asked."""
    settings = read_settings(cfg)
    return [] if settings is None or settings.score is not None else [*settings.calibration]


def _uses_unlabeled(cfg: CfgNode) -> bool:
    return bool(cfg.MODEL.DISTILL.METHODS) or cfg.MODEL.DISTILL.TEACHER_LABELS.ENABLED


def known_classes(cfg: CfgNode) -> tuple[list[str] | None, str]:
    """The class names of the weights that a config evaluates, and whose they are.

    They are those of the weights' run, or else of the config's first training set.
    """
    weights = cfg.MODEL.WEIGHTS
    if weights and (classes := saved_classes(Path(weights).parent)):
        return classes, f"'{weights}'"
    if classes := training_classes(cfg):
        return classes, f"'{cfg.DATASETS.TRAIN[0]}' in DATASETS.TRAIN"
    return None, ""


def training_classes(cfg: CfgNode) -> list[str] | None:
    """The class names of a config's first training set, without loading its images.

    Returns:
        The names; None where they are not known, or are not as many as the detector has, as where
        a config of own data inherits `DATASETS.TRAIN` from a recipe.
    """
    if not cfg.DATASETS.TRAIN:
        return None
    classes, count = data_classes(cfg, cfg.DATASETS.TRAIN[0]), _class_count(cfg)
    return classes if classes and count in (None, len(classes)) else None


def data_classes(cfg: CfgNode, name: str, *, load: bool = False) -> list[str] | None:
    """The class names of a data set as a config means it.

    What the config declares comes first: a run that has another config, such as its teacher's, may
    know other data under the same name.

    Args:
        cfg: config, of whichever run.
        name: name of the data set.
        load: whether registered data, which the config does not declare, is read where its classes
            are not known yet.

    Returns:
        The names; None where they are not known.
    """
    for key, read in DECLARED.items():
        for entry in cfg.DATASETS[key]:
            if entry[0] == name:
                try:
                    return list(read(entry[1]))
                except (OSError, ValueError, KeyError, TypeError):
                    return None  # moved or changed since; the run that reads it says what is wrong
    return registered_classes(name, load=load)


def registered_classes(name: str, *, load: bool = False) -> list[str] | None:
    """The class names of data that is registered, read for them with `load`; None if unknown."""
    if name not in DatasetCatalog:
        return None
    if load and MetadataCatalog.get(name).get("thing_classes") is None:
        DatasetCatalog.get(name)  # ours are read on first use
    classes = MetadataCatalog.get(name).get("thing_classes")
    return None if classes is None else list(classes)


def _coco_classes(json_file: str) -> list[str]:
    categories = read_coco_file(json_file, needs_annotations=False)["categories"]
    return [x["name"] for x in sorted(categories, key=lambda x: x["id"])]


def _yolo_classes(data_yaml: str) -> list[str]:
    path = Path(data_yaml)
    return class_names(read_data_yaml(path), path)


# Keys that declare data, and what reads the class names from the first path of an entry.
DECLARED: dict[str, Callable[[str], list[str]]] = {
    "COCO_FORMAT": _coco_classes,
    "VOC_FORMAT": voc_classes,
    "YOLO_FORMAT": _yolo_classes,
}


def _architecture(cfg: CfgNode) -> str:
    name: str = cfg.MODEL.META_ARCHITECTURE
    return cfg.MODEL.DISTILL.STUDENT_META_ARCHITECTURE if name == "DistilledDetector" else name


def _class_count(cfg: CfgNode) -> int | None:
    """How many classes a detector tells apart; None for one of another kind."""
    section = {"RetinaNet": "RETINANET", "FCOS": "FCOS"}.get(_architecture(cfg), "ROI_HEADS")
    count = cfg.MODEL.get(section, {}).get("NUM_CLASSES")
    return count if isinstance(count, int) else None
