"""The teacher's class names, and its weights in the student's order of classes."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import Tensor, nn

from reviewkd_det.common.data.classes import (
    describe_classes,
    map_classes,
    require_same_classes,
)
from reviewkd_det.common.runs.record import saved_classes
from reviewkd_det.core import BY_CLASS, find_method
from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.data.yaml_use import training_classes
from reviewkd_det.d2.runs.saved_run import run_of_config
from reviewkd_det.d2.teacher.zoo import find_teacher_config

__all__ = [
    "class_order",
    "count_object_classes",
    "in_student_order",
    "match_classes",
    "reorder_classes",
    "take_classes",
    "teacher_classes",
    "uses_classes",
]

logger = logging.getLogger(__name__)
# Weights with a row for each class: of scores, of boxes by class, of masks.
SCORES = re.compile(r"(?:^|\.)(?:cls_score|cls_pred|class_embed|predictor)\.")
BOXES = re.compile(r"(?:^|\.)box_predictor\.(?:.+\.)?bbox_pred\.")


def count_object_classes(detector: Any) -> int | None:
    """The number of a detector's object classes; None where it does not say."""
    count = getattr(getattr(detector, "roi_heads", detector), "num_classes", None)
    return count if isinstance(count, int) else None


def teacher_classes(config_file: str, weights: str, opts: Sequence[str] = ()) -> list[str] | None:
    """Find a teacher's class names: its run's record, or the data that its config trains on.

    Args:
        config_file: config of the teacher, a path or a model-zoo name.
        weights: checkpoint of the teacher; "" for its config's own.
        opts: changes to the teacher's config.

    Returns:
        The names in the order of its class numbers; None where nobody tells them.
    """
    path = find_teacher_config(config_file)
    cfg = None if path.suffix == ".py" else load_config(path, opts, "MODEL.DISTILL.TEACHER.OPTS")
    is_given = bool(weights) or "MODEL.WEIGHTS" in opts[::2]
    if cfg and (is_given or run_of_config(path) is None):  # else it is what the run began with
        weights = weights or cfg.MODEL.WEIGHTS
    for folder in ([Path(weights).parent] if weights else []) + [path.parent]:
        if classes := saved_classes(folder):
            return classes
    return training_classes(cfg) if cfg else None


def match_classes(
    student: Sequence[str], teacher: Sequence[str] | None, what: str, key: str, *, map_them: bool
) -> list[int]:
    """Compare the classes of student and teacher where a run uses both.

    Where nothing is known of the teacher's, a warning says what they are taken for.

    Args:
        student: class names of the student.
        teacher: class names of the teacher; None where they are not known.
        what: what uses them, for the error sentence.
        key: config key that maps them by name.
        map_them: value of that key.

    Returns:
        The teacher's class number for each of the student's; empty where the lists are equal or
        nothing is known of the teacher's.

    Raises:
        ValueError: the lists differ and are not to be mapped, or the teacher lacks a class.
    """
    if teacher is None:
        logger.warning(
            "The class names of the teacher are not known; %s takes its classes for those of the "
            "student, in the same order: %s",
            what,
            describe_classes(student),
        )
    if teacher is None or list(student) == list(teacher):
        return []
    if map_them:
        return map_classes(student, teacher, whose="the student", onto_whose="the teacher")
    require_same_classes(
        teacher,
        student,
        whose="the teacher",
        known_whose="the student",
        fix=f"{what} compares them by their numbers; set {key} to True to map them by name",
    )
    return []


def uses_classes(methods: Iterable[str]) -> bool:
    """Whether one of the methods, by their names, compares what is given class by class."""
    return any(find_method(name, "MODEL.DISTILL.METHODS").needs & BY_CLASS for name in methods)


def class_order(cfg: CfgNode) -> list[int]:
    """The teacher's class number for each of the student's, where methods compare by class.

    Args:
        cfg: config of a student whose training set is loaded.

    Returns:
        The numbers; empty where no method needs them, or they are the same or not known.

    Raises:
        ValueError: the classes differ and the config does not map them, or the teacher lacks one.
    """
    names = cfg.DATASETS.TRAIN[:1] if uses_classes(cfg.MODEL.DISTILL.METHODS) else ()
    own = MetadataCatalog.get(names[0]).get("thing_classes") if names else None
    if not own:
        return []
    settings, map_them = cfg.MODEL.DISTILL.TEACHER, cfg.DATASETS.get("MAP_CLASSES", False)
    theirs = teacher_classes(settings.CONFIG_FILE, settings.WEIGHTS, settings.OPTS)
    what = f"MODEL.DISTILL.METHODS {', '.join(cfg.MODEL.DISTILL.METHODS)}"
    return match_classes(own, theirs, what, "DATASETS.MAP_CLASSES", map_them=map_them)


def in_student_order(
    teacher_state: Mapping[str, Tensor],
    inherited: Mapping[str, Tensor],
    student: Sequence[str] | None,
    teacher: Sequence[str] | None,
    what: str,
    key: str,
    *,
    map_them: bool,
) -> Mapping[str, Tensor]:
    """The teacher's weights as the student inherits them: its classes in the student's order.

    Args:
        teacher_state: state dict of the teacher.
        inherited: the student's weights that take the teacher's, by name.
        student: class names of the student; None where they are not known.
        teacher: class names of the teacher; None where they are not known.
        what: what inherits them, for the error sentence.
        key: config key that maps classes by name.
        map_them: value of that key.

    Raises:
        ValueError: weights that belong to classes fit and the classes differ, unless they are
            mapped.
    """
    of_classes = [name for name in inherited if SCORES.search(name) or BOXES.search(name)]
    if not of_classes or student is None:
        return teacher_state
    can_map = map_them and teacher is not None and set(student) <= set(teacher)
    if not can_map and not any(
        name in teacher_state and teacher_state[name].shape == inherited[name].shape
        for name in of_classes
    ):
        return teacher_state  # of another number of classes: these weights are left out anyway
    order = match_classes(student, teacher, what, key, map_them=map_them)
    if not order or teacher is None:
        return teacher_state
    return reorder_classes(teacher_state, order, len(teacher))


def reorder_classes(
    state: Mapping[str, Tensor], order: Sequence[int], count: int
) -> dict[str, Tensor]:
    """A detector's state dict with its classes in another order.

    Args:
        state: state dict of the detector.
        order: its class number for each class of the new order.
        count: number of its classes, K.

    Returns:
        The state dict, whose rows of scores, boxes and masks are those of `order`.
    """
    return {name: _reordered(name, weight, order, count) for name, weight in state.items()}


def take_classes(part: nn.Module, order: Sequence[int], count: int) -> None:
    """Give a part of a detector its classes in another order.

    Args:
        part: the part, whose modules have the names of Detectron2's heads.
        order: its class number for each class of the new order.
        count: number of its classes, K.
    """
    for name, weight in list(part.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        reordered = nn.Parameter(_reordered(name, weight.detach(), order, count))
        setattr(part.get_submodule(owner), leaf, reordered)


def _reordered(name: str, weight: Tensor, order: Sequence[int], count: int) -> Tensor:
    rows = weight.shape[0] if weight.ndim else 0
    if BOXES.search(name) and rows == 4 * count:  # (4 K, ...), four for each class
        blocks = weight.unflatten(0, (count, 4))
        return blocks[list(order)].flatten(0, 1)
    if not SCORES.search(name) or not rows:
        return weight
    if rows == count + 1:  # (K + 1, ...), background last
        return weight[[*order, count]]
    if rows % count == 0:  # (A K, ...), of each anchor all classes
        blocks = weight.unflatten(0, (rows // count, count))
        return blocks[:, torch.tensor(list(order))].flatten(0, 1)
    return weight
