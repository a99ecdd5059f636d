"""How a run uses its data, whether its config is YAML or Python."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reviewkd_det.common.data.image_check import CHECKS

__all__ = ["DataKeys", "DataUse"]


@dataclass(frozen=True)
class DataKeys:
    """Names of config keys, for error sentences."""

    train: str = "DATASETS.TRAIN"
    test: str = "DATASETS.TEST"
    unlabeled: str = "DATASETS.UNLABELED"
    calibration: str = "MODEL.DISTILL.TEACHER_LABELS.CALIBRATION"
    check: str = "DATASETS.CHECK"
    map_classes: str = "DATASETS.MAP_CLASSES"
    masks: str = "MODEL.MASK_ON"
    mask_format: str = "INPUT.MASK_FORMAT"
    keypoints: str = "MODEL.KEYPOINT_ON"


@dataclass(frozen=True)
class DataUse:
    """What a run does with its data.

    Args:
        train: names of the data sets that are trained on; none where a run only evaluates.
        test: names of the data sets that are evaluated.
        unlabeled: names of the data sets whose images alone are used.
        folder: folder of the run.
        calibration: names of the data sets whose labels tell from which score on a teacher is
            right.
        check: how images are checked, one of `CHECKS`.
        map_classes: whether class lists that differ are mapped by name.
        has_classes: whether the detector tells classes apart.
        masks: whether masks are trained.
        mask_format: "polygon" or "bitmask", the masks that training takes.
        keypoints: whether keypoints are trained.
        all_keypoints: whether every object must have some then, and not only one object.
        train_resizes: Detectron2's resizing augmentations of training.
        test_resizes: those of the evaluation.
        known_classes: class names that the data must have: those of a run that goes on or of
            weights that are evaluated; None where nothing is known.
        known_whose: whose names these are, for error sentences.
        keys: names of the config keys.

    Raises:
        ValueError: `check` is none of `CHECKS`.
    """

    train: Sequence[str]
    test: Sequence[str]
    unlabeled: Sequence[str]
    folder: str
    calibration: Sequence[str] = ()
    check: str = "full"
    map_classes: bool = False
    has_classes: bool = True
    masks: bool = False
    mask_format: str = "polygon"
    keypoints: bool = False
    all_keypoints: bool = False
    train_resizes: Sequence[Any] = ()
    test_resizes: Sequence[Any] = ()
    known_classes: Sequence[str] | None = None
    known_whose: str = ""
    keys: DataKeys = field(default_factory=DataKeys)

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(
                f"{self.keys.check} must be one of {', '.join(CHECKS)}; got {self.check!r}"
            )
