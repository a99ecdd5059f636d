"""What `MODEL.DISTILL.TEACHER_LABELS` says, checked before anything is built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from reviewkd_det.common.runs.files import file_name_of
from reviewkd_det.d2.config import plain_config

__all__ = ["AUTO", "KEY", "SOFT", "LabelSettings", "label_file", "read_settings"]

KEY = "MODEL.DISTILL.TEACHER_LABELS"
AUTO = "auto"
SOFT = ("", "score", "probabilities")
REFUSED = ("SemanticSegmentor", "PanopticFPN")  # their labels cover every pixel


@dataclass(frozen=True)
class LabelSettings:
    """How a teacher's detections become labels.

    Args:
        score: least score of a label; None finds one for each class.
        keep_empty: whether images without any label are trained on.
        soft: how sure the teacher is, in the losses: one of `SOFT`.
        calibration: names of labelled data sets on which the scores are found.
        min_score: lowest score that may be found.
        min_objects: number of labelled objects below which a class takes the score of all classes.
        cache: folder of what teachers have detected; "" is one beside the teacher's weights.
    """

    score: float | None = None
    keep_empty: bool = False
    soft: str = ""
    calibration: tuple[str, ...] = ()
    min_score: float = 0.2
    min_objects: int = 10
    cache: str = ""


def read_settings(cfg: CfgNode) -> LabelSettings | None:
    """Read and check the settings of a student's config; None where they are not enabled.

    Raises:
        ValueError: a value is out of range, or the student or its data do not suit.
    """
    node = cfg.MODEL.DISTILL.TEACHER_LABELS
    if not node.ENABLED:
        return None
    settings = LabelSettings(
        score=_score(node.SCORE),
        keep_empty=node.KEEP_EMPTY,
        soft=node.SOFT,
        calibration=tuple(node.CALIBRATION),
        min_score=node.MIN_SCORE,
        min_objects=node.MIN_OBJECTS,
        cache=node.CACHE,
    )
    if settings.soft not in SOFT:
        raise ValueError(f'{KEY}.SOFT must be "", score or probabilities; got {settings.soft!r}')
    if not 0 < settings.min_score <= 1:
        raise ValueError(f"{KEY}.MIN_SCORE must be above 0 and at most 1; got {node.MIN_SCORE}")
    if settings.min_objects < 1:
        raise ValueError(f"{KEY}.MIN_OBJECTS must be at least 1; got {node.MIN_OBJECTS}")
    _check_student(cfg)
    _check_names(cfg, settings)
    return settings


def label_file(output_dir: str, name: str) -> Path:
    """The file of a run that holds the teacher's labels on a data set."""
    return Path(output_dir, "teacher_labels", file_name_of(name, ".json"))


def _score(value: Any) -> float | None:
    if value == AUTO:
        return None
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = -1.0
    if isinstance(value, bool) or not 0 < score <= 1:
        raise ValueError(
            f"{KEY}.SCORE must be auto, or a number above 0 and at most 1; got {value!r}"
        )
    return score


def _check_student(cfg: CfgNode) -> None:
    name = plain_config(cfg).MODEL.META_ARCHITECTURE
    if name in REFUSED:
        raise ValueError(
            f"{KEY}.ENABLED must be False for a student that labels every pixel; got True with "
            f"{name}; boxes, masks and keypoints are labelled"
        )
    if not cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE:
        raise ValueError(
            f"MODEL.DISTILL.TEACHER.CONFIG_FILE must name the teacher that labels; got '' with "
            f"{KEY}.ENABLED True"
        )
    if cfg.MODEL.META_ARCHITECTURE != "DistilledDetector" and cfg.MODEL.DISTILL.TEACHER_LABELS.SOFT:
        raise ValueError(
            f"MODEL.META_ARCHITECTURE must be DistilledDetector with {KEY}.SOFT; got {name}"
        )


def _check_names(cfg: CfgNode, settings: LabelSettings) -> None:
    if not cfg.DATASETS.UNLABELED:
        raise ValueError(
            f"DATASETS.UNLABELED must name the images that the teacher labels; got none with "
            f"{KEY}.ENABLED True"
        )
    for name in settings.calibration:
        if name in cfg.DATASETS.TEST:
            raise ValueError(
                f"{KEY}.CALIBRATION must name no data set of DATASETS.TEST, or its result is no "
                f"test any more; got '{name}'"
            )
    sampler = cfg.DATALOADER.SAMPLER_TRAIN
    if sampler.startswith("Weighted"):
        raise ValueError(
            f"DATALOADER.SAMPLER_TRAIN must not weight the sets of DATASETS.TRAIN with "
            f"{KEY}.ENABLED True; got {sampler}"
        )
