"""What a Python config tells of its data, checked before anything is built."""

from typing import Any

from omegaconf import OmegaConf

from reviewkd_det.d2.data import check_evaluable
from reviewkd_det.d2.data.checks import check_class_count, check_known
from reviewkd_det.d2.data.prepare import prepare_data
from reviewkd_det.d2.data.register import allow_malformed_masks
from reviewkd_det.d2.runs.python_use import KEYS, read_use
from reviewkd_det.d2.teacher.classes import match_classes, teacher_classes, uses_classes

__all__ = [
    "MAP_KEY",
    "TEST_NAMES",
    "TRAIN_NAMES",
    "check_data",
    "check_head",
    "dataset_names",
    "listed_names",
    "named_teacher_classes",
    "student_of",
]

TRAIN_NAMES, TEST_NAMES, MAP_KEY = KEYS.train, KEYS.test, KEYS.map_classes
ADVICE = "register your own with reviewkd_det.d2.data.register_coco_format"


def check_data(cfg: Any, *, training: bool, resume: bool = False) -> list[str] | None:
    """Check what the config tells of its data before anything is built.

    Args:
        cfg: config with `dataloader`, `model` and `train`; where the classes of a teacher are
            mapped, its `class_order` is set.
        training: whether the run trains, and does not only evaluate.
        resume: whether it goes on with the run of its folder.

    Returns:
        The class names in the order of the model's class numbers; None where none are known.

    Raises:
        KeyError: a data set has no such name.
        ValueError: a file cannot be evaluated, has other classes than the model, or see
            `prepare_data`.
    """
    keys = (TRAIN_NAMES, TEST_NAMES) if training else (TEST_NAMES,)
    for key in keys:
        check_known(key, dataset_names(cfg, key), ADVICE)
    train = dataset_names(cfg, TRAIN_NAMES) if training else []
    test = dataset_names(cfg, TEST_NAMES) if "evaluator" in cfg.dataloader else []
    use = read_use(cfg, train=train, test=test, training=training, resume=resume)
    if not use.masks:
        allow_malformed_masks([*use.train, *use.test])
    classes = prepare_data(use)
    if training and classes:
        _match_teacher(cfg, classes)
    if "evaluator" not in cfg.dataloader:
        return classes
    with_masks = OmegaConf.select(student_of(cfg), "roi_heads.mask_head") is not None
    for name in dataset_names(cfg, TEST_NAMES):
        check_evaluable(name, with_masks=with_masks)
    for key in keys:
        check_head(cfg, key)
    return classes


def _match_teacher(cfg: Any, classes: list[str]) -> None:
    """Compare the teacher's classes with the student's where methods compare logits."""
    teacher: Any = cfg.model.get("teacher") or {}
    if "config_file" in teacher and uses_classes(cfg.model.get("methods") or ()):
        what = f"model.methods {', '.join(cfg.model.methods)}"
        order = match_classes(
            classes, named_teacher_classes(cfg), what, MAP_KEY, map_them=cfg.train.map_classes
        )
        if order:
            teacher.class_order = order


def named_teacher_classes(cfg: Any) -> list[str] | None:
    """The class names of the teacher that a config names, where they are known."""
    teacher = cfg.model.teacher
    opts = list(teacher.get("opts") or ())
    return teacher_classes(teacher.config_file, teacher.get("weights", ""), opts)


def student_of(cfg: Any) -> Any:
    """The section of the detector that is trained."""
    return cfg.model.student if "student" in cfg.model else cfg.model


def dataset_names(cfg: Any, key: str) -> list[str]:
    """Names of data sets, where the config has them at a key."""
    return listed_names(OmegaConf.select(cfg, key))


def listed_names(value: Any) -> list[str]:
    """The names of a list, or of one that stands alone."""
    return [value] if isinstance(value, str) else list(value or ())


def check_head(cfg: Any, key: str) -> None:
    """Check that the detector has as many classes as the data sets that are loaded.

    Args:
        cfg: config with `dataloader` and `model`.
        key: config key of the names of the data sets.

    Raises:
        ValueError: it has not.
    """
    for place in ("roi_heads.num_classes", "num_classes"):
        count = OmegaConf.select(student_of(cfg), place)
        if isinstance(count, int):
            inside = "student." if "student" in cfg.model else ""
            return check_class_count(f"model.{inside}{place}", count, dataset_names(cfg, key))
