"""The data of a run, the student, its teacher and the methods between them, from a config."""

import logging
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator
from fvcore.common.config import CfgNode
from torch import nn

from classification.data import Data, DataSettings, Share, build_loaders
from classification.distilled import (
    DKD,
    KD,
    DistilledClassifier,
    Method,
    ReviewKD,
    Shape,
    pair_levels,
)
from classification.models import create_model
from classification.reading.find_taps import find_taps
from classification.reading.preprocess import Preprocess
from classification.reading.taps import TappedModel
from classification.weights import load_weights
from reviewkd_det.core import FrozenTeacher

__all__ = ["build_classifier", "build_data", "build_model"]

logger = logging.getLogger(__name__)
KEY = "DISTILL.REVIEWKD"


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


def build_model(name: str, weights: str, num_classes: int, key: str) -> nn.Module:
    """Build a network with its first weights.

    Args:
        name: see `create_model`.
        weights: a checkpoint file, which has a suffix, or as `create_model` takes it.
        num_classes: as the data has.
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


def build_classifier(cfg: CfgNode, num_classes: int) -> tuple[DistilledClassifier, nn.Module]:
    """Build what is trained.

    The student comes first, so its first weights depend on the seed alone.

    Returns:
        The classifier with its teacher and methods, and the student by itself, which shares its
        parameters.

    Raises:
        FileNotFoundError: a checkpoint file does not exist.
        KeyError: a network's name is unknown.
        ValueError: weights or taps do not fit.
    """
    student = build_model(cfg.MODEL.NAME, cfg.MODEL.WEIGHTS, num_classes, "MODEL")
    preprocess = Preprocess(cfg.INPUT.MEAN, cfg.INPUT.STD)
    if not cfg.DISTILL.METHODS:
        return DistilledClassifier(TappedModel(student), preprocess), student
    if not cfg.TEACHER.WEIGHTS:
        raise ValueError(
            f"TEACHER.WEIGHTS must name the trained weights of {cfg.TEACHER.NAME}; got ''"
        )
    teacher = build_model(cfg.TEACHER.NAME, cfg.TEACHER.WEIGHTS, num_classes, "TEACHER")
    methods: dict[str, nn.Module] = {}
    names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    if "ReviewKD" in cfg.DISTILL.METHODS:
        names = _taps(cfg, student, teacher)
    tapped_student, tapped_teacher = (
        TappedModel(model, taps, f"{KEY}.{side}_TAPS")
        for model, taps, side in zip((student, teacher), names, ("STUDENT", "TEACHER"), strict=True)
    )
    if "ReviewKD" in cfg.DISTILL.METHODS:
        student_shapes, teacher_shapes = (
            tapped.level_shapes(cfg.INPUT.SIZE) for tapped in (tapped_student, tapped_teacher)
        )
        _say_levels(names, (student_shapes, teacher_shapes))
        methods["ReviewKD"] = ReviewKD(
            student_shapes, teacher_shapes, cfg.DISTILL.REVIEWKD.MID_CHANNELS
        )
    if "KD" in cfg.DISTILL.METHODS:
        methods["KD"] = KD(cfg.DISTILL.KD.TEMPERATURE)
    if "DKD" in cfg.DISTILL.METHODS:
        dkd = cfg.DISTILL.DKD
        methods["DKD"] = DKD(dkd.ALPHA, dkd.BETA, dkd.TEMPERATURE)
    mean, std = cfg.TEACHER.MEAN or cfg.INPUT.MEAN, cfg.TEACHER.STD or cfg.INPUT.STD
    same = (tuple(mean), tuple(std)) == (tuple(cfg.INPUT.MEAN), tuple(cfg.INPUT.STD))
    classifier = DistilledClassifier(
        tapped_student,
        preprocess,
        teacher=FrozenTeacher(tapped_teacher),
        teacher_preprocess=None if same else Preprocess(mean, std),
        methods={
            name: Method(
                methods[name],
                cfg.DISTILL[name.upper()].LOSS_WEIGHT,
                cfg.DISTILL[name.upper()].WARMUP_EPOCHS,
            )
            for name in cfg.DISTILL.METHODS
        },
        cross_entropy_weight=cfg.DISTILL.CROSS_ENTROPY_WEIGHT,
    )
    return classifier, student


def _taps(
    cfg: CfgNode, student: nn.Module, teacher: nn.Module
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nodes that ReviewKD compares: those named, or those found."""
    review = cfg.DISTILL.REVIEWKD
    named = tuple(review.STUDENT_TAPS), tuple(review.TEACHER_TAPS)
    if all(named):
        if len(named[0]) != len(named[1]):
            raise ValueError(
                f"{KEY}.STUDENT_TAPS and TEACHER_TAPS must be as many; "
                f"got {named[0]} and {named[1]}"
            )
        return named
    if any(named):
        raise ValueError(
            f"{KEY}.STUDENT_TAPS and TEACHER_TAPS must be given together; "
            f"got {named[0]} and {named[1]}"
        )
    found = [
        find_taps(
            model,
            cfg.INPUT.SIZE,
            before_activation=activation == "before",
            pooled=review.POOLED,
        )
        for model, activation in (
            (student, review.STUDENT_ACTIVATION),
            (teacher, review.TEACHER_ACTIVATION),
        )
    ]
    levels = [
        dict(zip(taps, TappedModel(model, taps).level_shapes(cfg.INPUT.SIZE), strict=True))
        for model, taps in zip((student, teacher), found, strict=True)
    ]
    return pair_levels(*levels)


def _say_levels(names: Sequence[Sequence[str]], shapes: Sequence[Sequence[Shape]]) -> None:
    pairs = [
        f"{ours} {'x'.join(map(str, our_shape))} <- {theirs} {'x'.join(map(str, their_shape))}"
        for ours, our_shape, theirs, their_shape in zip(
            names[0], shapes[0], names[1], shapes[1], strict=True
        )
    ]
    logger.info("ReviewKD compares %s", ", ".join(pairs))
