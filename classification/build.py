"""The data of a run, the student, its teacher and the methods between them, from a config."""

import logging
from pathlib import Path

from accelerate import Accelerator
from fvcore.common.config import CfgNode
from torch import nn

from classification.config_checks import plan_config, unlabeled_paths
from classification.data import Data, DataSettings, Share, build_loaders
from classification.distilled import DistilledClassifier
from classification.models import create_model
from classification.models.weights import load_weights
from classification.reading.levels import choose_taps, describe_levels
from classification.reading.preprocess import Preprocess
from classification.reading.taps import TappedModel
from reviewkd_det.common.distill.build import build_methods, needs_of
from reviewkd_det.core import FrozenTeacher, Need, Side

__all__ = ["build_classifier", "build_data", "build_model"]

logger = logging.getLogger(__name__)


def build_data(cfg: CfgNode, accelerator: Accelerator, *, training: bool = True) -> Data:
    """Load the data of a config; this process's share of each batch goes to its device.

    Args:
        cfg: config of the run.
        accelerator: accelerator of this process.
        training: False for the test images alone; those without labels are then left out, and the
            training batch is of one image.

    Raises:
        ValueError: SOLVER.BATCH_SIZE cannot be shared equally; see `build_loaders` for the rest.
    """
    processes = accelerator.num_processes
    parts = processes * cfg.SOLVER.ACCUMULATION_STEPS
    if training and cfg.SOLVER.BATCH_SIZE % parts:
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
        subset_seed=cfg.DATA.SUBSET_SEED,
        unlabeled=unlabeled_paths(cfg.DATA.UNLABELED) if training else (),
    )
    return build_loaders(
        settings,
        batch_size=cfg.SOLVER.BATCH_SIZE // processes if training else 1,
        eval_batch_size=cfg.TEST.BATCH_SIZE,
        micro_batches=cfg.SOLVER.ACCUMULATION_STEPS if training else 1,
        seed=cfg.SEED,
        share=Share(accelerator.process_index, processes),
        device=accelerator.device,
    )


def build_model(name: str, weights: str, num_classes: int, key: str) -> nn.Module:
    """Build a network with its first weights.

    Args:
        name: name of the network, as `create_model` takes it.
        weights: a checkpoint file, which has a suffix, or as `create_model` takes it.
        num_classes: number of classes of the data.
        key: MODEL or TEACHER, for error sentences.

    Raises:
        FileNotFoundError: the checkpoint file does not exist.
        KeyError: the name is unknown.
        ValueError: the weights do not fit.
    """
    is_file = bool(Path(weights).suffix) or Path(weights).is_file()
    model = create_model(name, num_classes=num_classes, weights="" if is_file else weights)
    if is_file:
        load_weights(model, weights, f"{key}.WEIGHTS")
    return model


def build_classifier(
    cfg: CfgNode, num_classes: int, *, labeled_share: float | None = None
) -> tuple[DistilledClassifier, nn.Module]:
    """Build what is trained.

    The student comes first, so its first weights depend on the seed alone.

    Args:
        cfg: config of the run.
        num_classes: number of classes of the data.
        labeled_share: part of the training images that have a label; None where all have one.

    Returns:
        The classifier with its teacher and methods, and the student by itself, which shares its
        parameters.

    Raises:
        FileNotFoundError: a checkpoint file does not exist.
        KeyError: a network's name is unknown.
        ValueError: weights, taps or methods do not fit.
    """
    student = build_model(cfg.MODEL.NAME, cfg.MODEL.WEIGHTS, num_classes, "MODEL")
    preprocess = Preprocess(cfg.INPUT.MEAN, cfg.INPUT.STD)
    plans = plan_config(cfg)
    if not plans:
        return DistilledClassifier(TappedModel(student), preprocess), student
    if not cfg.TEACHER.WEIGHTS:
        raise ValueError(
            f"TEACHER.WEIGHTS must name the trained weights of {cfg.TEACHER.NAME}; got ''"
        )
    teacher = build_model(cfg.TEACHER.NAME, cfg.TEACHER.WEIGHTS, num_classes, "TEACHER")
    with_levels = Need.LEVELS in needs_of(plans)
    names = choose_taps(cfg, student, teacher) if with_levels else ((), ())
    tapped_student, tapped_teacher = (
        TappedModel(model, taps, f"DISTILL.{side}_TAPS")
        for model, taps, side in zip((student, teacher), names, ("STUDENT", "TEACHER"), strict=True)
    )
    sides = [
        Side(tapped.find_levels(cfg.INPUT.SIZE) if with_levels else (), num_classes)
        for tapped in (tapped_student, tapped_teacher)
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
        # With less than one label in a batch, its weight would grow with the images without one.
        labeled_share=labeled_share and max(labeled_share, 1 / cfg.SOLVER.BATCH_SIZE),
    )
    return classifier, student
