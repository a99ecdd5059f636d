"""What a new student takes from its teacher, as either kind of config names it."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import nn

from reviewkd_det.d2.runs.python_data import (
    MAP_KEY,
    TRAIN_NAMES,
    dataset_names,
    listed_names,
    named_teacher_classes,
)
from reviewkd_det.d2.teacher.build import teacher_state
from reviewkd_det.d2.teacher.classes import in_student_order, teacher_classes
from reviewkd_det.d2.teacher.source import read_teacher
from reviewkd_det.d2.weights.inherit import inherit, inherited_names

__all__ = ["inherit_from_python", "inherit_from_yaml"]


def inherit_from_yaml(cfg: CfgNode, student: nn.Module) -> set[str]:
    """Let a new student take what `MODEL.DISTILL.INHERIT` names."""
    parts, teacher = cfg.MODEL.DISTILL.INHERIT, cfg.MODEL.DISTILL.TEACHER
    if not parts:
        return set()
    own = student.state_dict()
    state = in_student_order(
        teacher_state(cfg),
        {name: own[name] for name in inherited_names(own, parts)},
        MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("thing_classes"),
        teacher_classes(teacher.CONFIG_FILE, teacher.WEIGHTS, teacher.OPTS),
        "MODEL.DISTILL.INHERIT",
        "DATASETS.MAP_CLASSES",
        map_them=cfg.DATASETS.MAP_CLASSES,
    )
    return inherit(student, state, parts)


def inherit_from_python(cfg: Any, student: nn.Module) -> set[str]:
    """Let a new student take what `train.inherit` names."""
    teacher: Any = cfg.model.get("teacher") or {}
    parts = listed_names(cfg.train.inherit)
    if not parts:
        return set()
    if "config_file" not in teacher:
        raise ValueError(
            "train.inherit must be empty without a model.teacher that has a config_file; "
            f"got {parts}"
        )
    opts = list(teacher.get("opts") or ())
    source = read_teacher(
        teacher.config_file, teacher.get("weights", ""), opts, teacher.get("weights_entry", "")
    )
    # A resumed run, which builds no teacher, draws the same as this one.
    with torch.random.fork_rng(devices=[]):
        state: Any = source.load_state()
    own, names = student.state_dict(), dataset_names(cfg, TRAIN_NAMES)
    state = in_student_order(
        state,
        {name: own[name] for name in inherited_names(own, parts)},
        MetadataCatalog.get(names[0]).get("thing_classes") if names else None,
        named_teacher_classes(cfg),
        "train.inherit",
        MAP_KEY,
        map_them=cfg.train.map_classes,
    )
    return inherit(student, state, parts, "train.inherit")
