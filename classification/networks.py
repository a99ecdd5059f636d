"""A student or teacher by name, with its first or its trained weights."""

import logging
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import nn

from classification.config_checks import plan_config
from classification.models import create_model
from classification.models.libraries import classes_of_weights
from classification.models.reused import ReusedClassifier
from classification.models.weights import classes_of_file, load_weights
from reviewkd_det.core import BY_CLASS, Need
from reviewkd_det.core.methods.simkd import SimKD

__all__ = ["build_deployed", "build_model", "build_teacher", "reuse_classifier"]

logger = logging.getLogger(__name__)


def build_model(
    name: str, weights: str, num_classes: int, key: str, *, entry: str = ""
) -> nn.Module:
    """Build a network with its first weights.

    Args:
        name: name of the network, as `create_model` takes it.
        weights: a checkpoint file, which has a suffix, or as `create_model` takes it.
        num_classes: number of classes of the data.
        key: MODEL or TEACHER, whose weights are taken of a file with both, and for sentences.
        entry: entry or prefix of the file that is taken; "" finds it.

    Raises:
        FileNotFoundError: the checkpoint file does not exist.
        KeyError: the name is unknown.
        ValueError: the weights do not fit.
    """
    model = create_model(
        name, num_classes=num_classes, weights="" if _is_file(weights) else weights
    )
    if _is_file(weights):
        role = "teacher" if key == "TEACHER" else "student"
        load_weights(model, weights, f"{key}.WEIGHTS", role=role, entry=entry)
    return model


def reuse_classifier(cfg: CfgNode, student: nn.Module, teacher: nn.Module) -> nn.Module:
    """The network that is trained and deployed: the student, or what a method makes of it.

    Args:
        cfg: config of the run.
        student: the student, as MODEL.NAME names it.
        teacher: the teacher, as TEACHER.NAME names it.

    Raises:
        ValueError: the teacher's classifier cannot be taken.
    """
    reductions = _reductions(cfg)
    if not reductions:
        return student
    sizes = cfg.INPUT.SIZE, cfg.TEACHER.SIZE or cfg.INPUT.SIZE
    return ReusedClassifier(student, teacher, sizes, reductions[0])


def build_deployed(cfg: CfgNode, weights: str, num_classes: int, *, entry: str = "") -> nn.Module:
    """Build what a run deploys, with its weights.

    Args:
        cfg: config of the run.
        weights: as `build_model` takes them.
        num_classes: number of classes of the data.
        entry: entry or prefix of the file that is taken; "" finds it.

    Raises:
        FileNotFoundError: the checkpoint file does not exist.
        KeyError: a name is unknown.
        ValueError: the weights do not fit.
    """
    if not _reductions(cfg):
        return build_model(cfg.MODEL.NAME, weights, num_classes, "MODEL", entry=entry)
    names = cfg.MODEL.NAME, cfg.TEACHER.NAME
    model = reuse_classifier(cfg, *(create_model(x, num_classes=num_classes) for x in names))
    load_weights(model, weights, "MODEL.WEIGHTS", entry=entry)
    return model


def _reductions(cfg: CfgNode) -> list[int]:
    """Of methods that replace the student's classifier, by what their projector is narrower."""
    plans = plan_config(cfg).values()
    return [x.settings.reduction for x in plans if isinstance(x.settings, SimKD.Settings)]


def build_teacher(cfg: CfgNode, num_classes: int, needs: Need) -> tuple[nn.Module, int]:
    """Build the teacher with its trained weights.

    Args:
        cfg: config of the run.
        num_classes: number of classes of the data.
        needs: what the methods need of it; without logits its classes may be others.

    Returns:
        The network, and how many classes it tells apart.

    Raises:
        ValueError: no weights are named, or they do not fit.
    """
    settings = cfg.TEACHER
    if not settings.WEIGHTS:
        raise ValueError(
            f"TEACHER.WEIGHTS must name the trained weights of {settings.NAME}; got ''"
        )
    with_logits = bool(needs & BY_CLASS)
    classes = num_classes
    if not (with_logits and _is_file(settings.WEIGHTS)):  # which is compared when it is loaded
        classes = _classes_of_teacher(settings, num_classes) or num_classes
    if classes != num_classes and with_logits:
        raise ValueError(
            f"TEACHER.WEIGHTS must be for {num_classes} classes, as the data has; "
            f"got '{settings.WEIGHTS}' for {classes}; methods on levels alone take it"
        )
    if classes != num_classes:
        logger.info(
            "The teacher tells %d classes apart, the data has %d: only its levels are used, and it "
            "is not tested",
            classes,
            num_classes,
        )
    entry = settings.WEIGHTS_ENTRY
    return build_model(settings.NAME, settings.WEIGHTS, classes, "TEACHER", entry=entry), classes


def _is_file(weights: str) -> bool:
    return bool(Path(weights).suffix) or Path(weights).is_file()


def _classes_of_teacher(settings: CfgNode, num_classes: int) -> int | None:
    """How many classes the teacher's weights are for; None where that is not known."""
    name, weights = settings.NAME, settings.WEIGHTS
    if not _is_file(weights):
        return classes_of_weights(name, weights)
    with torch.random.fork_rng(devices=[]):  # methods begin as without this one
        model = create_model(name, num_classes=num_classes)
    return classes_of_file(
        model, weights, "TEACHER.WEIGHTS", num_classes, role="teacher", entry=settings.WEIGHTS_ENTRY
    )
