"""The data of a run, the student, its teacher and the methods between them, from a config."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from fvcore.common.config import CfgNode
from torch import Tensor, nn
from torch.optim import Optimizer

from classification.config_checks import AVERAGE, plan_config, taught, unlabeled_paths
from classification.data import Data, DataSettings, Share, build_loaders
from classification.data.mixing import Mixing
from classification.distilled import DistilledClassifier
from classification.networks import build_model, build_teacher, reuse_classifier
from classification.reading.levels import choose_taps, describe_levels
from classification.reading.preprocess import build_preprocess
from classification.reading.taps import TappedModel
from reviewkd_det.common.data.classes import require_same_classes
from reviewkd_det.common.distill.build import MethodPlan, build_methods, needs_of
from reviewkd_det.common.runs.record import saved_classes
from reviewkd_det.common.tracing.stages import find_vector
from reviewkd_det.core import BY_CLASS, FrozenTeacher, Need

__all__ = [
    "build_classifier",
    "build_data",
    "build_mixing",
    "build_optimizer",
    "check_classes",
]

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
        erasing=cfg.INPUT.RANDOM_ERASING,
        fill=tuple(round(255 * min(max(mean, 0), 1)) for mean in cfg.INPUT.MEAN),
        check=cfg.DATA.CHECK,
        run_folder=cfg.OUTPUT_DIR,
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
        gather=lambda mine: gather_object([mine]),
    )


def build_mixing(cfg: CfgNode, accelerator: Accelerator, num_classes: int) -> Mixing:
    """What mixes the training images of a config.

    Raises:
        ValueError: an image would be mixed with itself.
    """
    parts = accelerator.num_processes * cfg.SOLVER.ACCUMULATION_STEPS
    if (cfg.INPUT.MIXUP or cfg.INPUT.CUTMIX) and 2 * parts > cfg.SOLVER.BATCH_SIZE:
        raise ValueError(
            f"SOLVER.BATCH_SIZE must be {2 * parts} or more with INPUT.MIXUP or INPUT.CUTMIX, "
            f"which mix the images of each of {accelerator.num_processes} processes x "
            f"{cfg.SOLVER.ACCUMULATION_STEPS} accumulation steps; got {cfg.SOLVER.BATCH_SIZE}"
        )
    share = Share(accelerator.process_index, accelerator.num_processes)
    return Mixing(cfg.INPUT.MIXUP, cfg.INPUT.CUTMIX, num_classes, cfg.SEED, share)


def build_optimizer(cfg: CfgNode, classifier: nn.Module, student: nn.Module) -> Optimizer:
    """The optimiser of a config, over everything that learns.

    With AdamW, as in timm, neither vectors decay nor what a network names in `no_weight_decay`.

    Args:
        cfg: config of the run.
        classifier: what is trained.
        student: the student by itself.
    """
    solver = cfg.SOLVER
    if solver.OPTIMIZER == "SGD":
        return torch.optim.SGD(
            classifier.parameters(),
            lr=solver.LR,
            momentum=solver.MOMENTUM,
            nesterov=solver.NESTEROV,
            weight_decay=solver.WEIGHT_DECAY,
        )
    named: Any = getattr(student, "no_weight_decay", set)()
    kept = {id(weight) for name, weight in student.named_parameters() if name in named}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for weight in classifier.parameters():
        groups[weight.ndim > 1 and id(weight) not in kept].append(weight)
    return torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": solver.WEIGHT_DECAY if decays else 0.0}
            for decays, weights in groups.items()
            if weights
        ],
        lr=solver.LR,
    )


def check_classes(
    cfg: CfgNode, class_names: Sequence[str], *, resume: bool = False, tested: str = ""
) -> None:
    """Compare the classes of the data with those of the runs whose weights are used.

    They are known where the weights lie in the folder of their run. A teacher's matter where
    methods need its logits.

    Args:
        cfg: config of the run.
        class_names: classes of the data, in the order of their numbers.
        resume: whether the run goes on with that of its folder.
        tested: weights that are tested in place of a training; "" for none.

    Raises:
        ValueError: the lists differ in names or order.
    """
    runs = [(cfg.OUTPUT_DIR, "OUTPUT_DIR", "give it its own data, or another folder")] * resume
    if tested:
        runs.append((str(Path(tested).parent), "--weights", "test them on data of their classes"))
    needs = _needs_of_teacher(plan_config(cfg), fills=bool(unlabeled_paths(cfg.DATA.UNLABELED)))
    if not tested and needs & BY_CLASS and cfg.TEACHER.WEIGHTS:
        folder = str(Path(cfg.TEACHER.WEIGHTS).parent)
        runs.append((folder, "TEACHER.WEIGHTS", "take a teacher of these classes, in this order"))
    for folder, key, fix in runs:
        if (saved := saved_classes(folder)) is not None:
            run = f"the run in '{folder}' ({key})"
            require_same_classes(class_names, saved, whose="the data", known_whose=run, fix=fix)


def _needs_of_teacher(plans: Mapping[str, MethodPlan], *, fills: bool) -> Need:
    """What the methods need of the teacher: its logits also where its class stands for a label.

    Args:
        plans: the methods.
        fills: whether there are images without labels.
    """
    needs = needs_of(plans)
    return needs | Need.LOGITS if fills and Need.TARGET in needs else needs


def build_classifier(
    cfg: CfgNode,
    num_classes: int,
    *,
    labeled_share: float | None = None,
    samples: Tensor | None = None,
) -> tuple[DistilledClassifier, nn.Module]:
    """Build what is trained.

    The student comes first, so its first weights depend on the seed alone.

    Args:
        cfg: config of the run.
        num_classes: number of classes of the data.
        labeled_share: part of the training images that have a label; None where all have one.
        samples: class of each training image, or -1, (n,), for methods that need it.

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
    preprocess, teacher_preprocess = build_preprocess(cfg)
    plans = plan_config(cfg)
    if not plans:
        smoothing = cfg.SOLVER.LABEL_SMOOTHING
        plain = DistilledClassifier(TappedModel(student), preprocess, label_smoothing=smoothing)
        return plain, student
    needs = _needs_of_teacher(plans, fills=labeled_share is not None)
    is_itself = not taught(cfg) or cfg.TEACHER.NAME == AVERAGE
    if is_itself:  # and what it will be the average of is not built yet
        teacher, teacher_classes = student, num_classes
    else:
        teacher, teacher_classes = build_teacher(cfg, num_classes, needs)
        student = reuse_classifier(cfg, student, teacher)
    sizes = cfg.INPUT.SIZE, cfg.TEACHER.SIZE or cfg.INPUT.SIZE
    tapped_student, tapped_teacher = _tap(cfg, (student, teacher), sizes, plans)
    with_levels = Need.LEVELS in needs
    sides = [
        tapped.find_side(size, classes, with_norms=Need.NORMS in needs)
        for tapped, size, classes in (
            (tapped_student, sizes[0], num_classes),
            (tapped_teacher, sizes[1], teacher_classes),
        )
    ]
    if with_levels:
        logger.info("Levels compared: %s", describe_levels(*(side.levels for side in sides)))
    classifier = DistilledClassifier(
        tapped_student,
        preprocess,
        teacher=None if is_itself else FrozenTeacher(tapped_teacher),
        teacher_preprocess=teacher_preprocess,
        methods=build_methods(plans, sides[0], sides[1], samples=samples, length=cfg.SOLVER.EPOCHS),
        cross_entropy_weight=_cross_entropy_weight(cfg, plans),
        label_smoothing=cfg.SOLVER.LABEL_SMOOTHING,
        teacher_knows_classes=teacher_classes == num_classes,
        # With less than one label in a batch, its weight would grow with the images without one.
        labeled_share=labeled_share and max(labeled_share, 1 / cfg.SOLVER.BATCH_SIZE),
    )
    return classifier, student


def _cross_entropy_weight(cfg: CfgNode, plans: Mapping[str, MethodPlan]) -> float:
    """The factor of the loss on the labels, which some methods do without."""
    without = [name for name, plan in plans.items() if not plan.method.learns_from_labels]
    weight = float(cfg.DISTILL.CROSS_ENTROPY_WEIGHT)
    if without and weight:
        logger.info("%s learns without the labels; their loss is left out", ", ".join(without))
    return 0.0 if without else weight


def _tap(
    cfg: CfgNode,
    models: tuple[nn.Module, nn.Module],
    sizes: tuple[int, int],
    plans: Mapping[str, MethodPlan],
) -> tuple[TappedModel, TappedModel]:
    """Tap student and teacher for what the methods need."""
    needs = needs_of(plans)
    names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    if Need.LEVELS in needs:
        on_levels = {k: x.method for k, x in plans.items() if Need.LEVELS in x.method.needs}
        meant = {method.activation for method in on_levels.values()}
        if len(meant) > 1 and not cfg.DISTILL.STUDENT_TAPS:
            words = [
                f"{k} on maps {x.activation or 'of either kind'}" for k, x in on_levels.items()
            ]
            raise ValueError(
                "DISTILL.METHODS must not mix methods on maps before or after the activation with "
                f"others unless STUDENT_TAPS and TEACHER_TAPS name the maps; got {', '.join(words)}"
            )
        names = choose_taps(cfg, *models, activation=meant.pop())
    vectors = [
        find_vector(model, size) if Need.VECTOR in needs else ""
        for model, size in zip(models, sizes, strict=True)
    ]
    student, teacher = (
        TappedModel(model, taps, f"DISTILL.{side}_TAPS", vector=vector)
        for model, taps, vector, side in zip(
            models, names, vectors, ("STUDENT", "TEACHER"), strict=True
        )
    )
    return student, teacher
