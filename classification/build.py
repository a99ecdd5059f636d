"""The data of a run, the student, its teacher and the methods between them, from a config."""

import logging
from pathlib import Path

import torch
from accelerate import Accelerator
from fvcore.common.config import CfgNode
from torch import nn

from classification.config_checks import plan_config
from classification.data import Data, DataSettings, Share, build_loaders
from classification.distilled import DistilledClassifier
from classification.models import create_model
from classification.models.libraries import classes_of_weights
from classification.models.weights import classes_of_file, load_weights
from classification.reading.levels import choose_taps, describe_levels
from classification.reading.preprocess import Preprocess
from classification.reading.taps import TappedModel
from reviewkd_det.common.distill.build import build_methods, needs_of
from reviewkd_det.core import FrozenTeacher, Need, Side

__all__ = ["build_classifier", "build_data", "build_model"]

logger = logging.getLogger(__name__)


def build_data(cfg: CfgNode, accelerator: Accelerator) -> Data:
    """Load the data of a config; this process's share of each batch goes to its device.

    Raises:
        ValueError: SOLVER.BATCH_SIZE cannot be shared equally; see `build_loaders` for the rest.
    """
    processes = accelerator.num_processes
    parts = processes * cfg.SOLVER.ACCUMULATION_STEPS
    if cfg.SOLVER.BATCH_SIZE % parts:
        raise ValueError(
            f"SOLVER.BATCH_SIZE must be a multiple of {processes} processes x "
            f"{cfg.SOLVER.ACCUMULATION_STEPS} accumulation steps; got {cfg.SOLVER.BATCH_SIZE}"
        )
    settings = DataSettings(
        name=cfg.DATA.NAME,
        root=cfg.DATA.ROOT,
        image_size=cfg.INPUT.SIZE,
        train_images=cfg.DATA.TRAIN_IMAGES,
        augmentation=cfg.INPUT.AUGMENTATION,
        crop_padding=cfg.INPUT.CROP_PADDING,
        loader=cfg.DATA.LOADER,
        workers=cfg.DATA.WORKERS,
    )
    return build_loaders(
        settings,
        batch_size=cfg.SOLVER.BATCH_SIZE // processes,
        eval_batch_size=cfg.TEST.BATCH_SIZE,
        micro_batches=cfg.SOLVER.ACCUMULATION_STEPS,
        seed=cfg.SEED,
        share=Share(accelerator.process_index, processes),
        device=accelerator.device,
    )


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
    with_logits = Need.LOGITS in needs
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


def build_classifier(cfg: CfgNode, num_classes: int) -> tuple[DistilledClassifier, nn.Module]:
    """Build what is trained.

    The student comes first, so its first weights depend on the seed alone.

    Returns:
        The classifier with its teacher and methods, and the student by itself, which shares its
        parameters.

    Raises:
        FileNotFoundError: a checkpoint file does not exist.
        KeyError: a network's name is unknown.
        ValueError: weights, taps or methods do not fit.
    """
    student = build_model(
        cfg.MODEL.NAME, cfg.MODEL.WEIGHTS, num_classes, "MODEL", entry=cfg.MODEL.WEIGHTS_ENTRY
    )
    preprocess = Preprocess(cfg.INPUT.MEAN, cfg.INPUT.STD)
    plans = plan_config(cfg)
    if not plans:
        return DistilledClassifier(TappedModel(student), preprocess), student
    teacher, teacher_classes = build_teacher(cfg, num_classes, needs_of(plans))
    with_levels = Need.LEVELS in needs_of(plans)
    names = choose_taps(cfg, student, teacher) if with_levels else ((), ())
    tapped_student, tapped_teacher = (
        TappedModel(model, taps, f"DISTILL.{side}_TAPS")
        for model, taps, side in zip((student, teacher), names, ("STUDENT", "TEACHER"), strict=True)
    )
    sides = [
        Side(tapped.find_levels(cfg.INPUT.SIZE) if with_levels else (), classes)
        for tapped, classes in ((tapped_student, num_classes), (tapped_teacher, teacher_classes))
    ]
    if with_levels:
        logger.info("Levels compared: %s", describe_levels(*(side.levels for side in sides)))
    mean, std = cfg.TEACHER.MEAN or cfg.INPUT.MEAN, cfg.TEACHER.STD or cfg.INPUT.STD
    same = (tuple(mean), tuple(std)) == (tuple(cfg.INPUT.MEAN), tuple(cfg.INPUT.STD))
    classifier = DistilledClassifier(
        tapped_student,
        preprocess,
        teacher=FrozenTeacher(tapped_teacher),
        teacher_preprocess=None if same else Preprocess(mean, std),
        methods=build_methods(plans, *sides),
        cross_entropy_weight=cfg.DISTILL.CROSS_ENTROPY_WEIGHT,
        teacher_knows_classes=teacher_classes == num_classes,
    )
    return classifier, student
