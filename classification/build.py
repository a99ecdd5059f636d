"""The data of a run and its optimiser, from a config."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from fvcore.common.config import CfgNode
from torch import nn
from torch.optim import Optimizer

from classification.config_checks import plan_config, unlabeled_paths
from classification.data import Data, DataSettings, Share, build_loaders
from classification.data.mixing import Mixing
from reviewkd_det.common.data.classes import require_same_classes
from reviewkd_det.common.distill.build import MethodPlan, needs_of
from reviewkd_det.common.runs.record import saved_classes
from reviewkd_det.core import BY_CLASS, Need

__all__ = [
    "build_data",
    "build_mixing",
    "build_optimizer",
    "check_classes",
    "needs_of_teacher",
]


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
    needs = needs_of_teacher(plan_config(cfg), fills=bool(unlabeled_paths(cfg.DATA.UNLABELED)))
    if not tested and needs & BY_CLASS:
        fix = "take a teacher of these classes, in this order"
        others = [(weights, "TEACHER.OTHERS") for _, weights in cfg.TEACHER.OTHERS]
        for weights, key in ((cfg.TEACHER.WEIGHTS, "TEACHER.WEIGHTS"), *others):
            if weights:
                runs.append((str(Path(weights).parent), key, fix))
    for folder, key, fix in runs:
        if (saved := saved_classes(folder)) is not None:
            run = f"the run in '{folder}' ({key})"
            require_same_classes(class_names, saved, whose="the data", known_whose=run, fix=fix)


def needs_of_teacher(plans: Mapping[str, MethodPlan], *, fills: bool) -> Need:
    """What the methods need of the teacher: its logits also where its class stands for a label.

    Args:
        plans: the methods.
        fills: whether there are images without labels.
    """
    needs = needs_of(plans)
    return needs | Need.LOGITS if fills and Need.TARGET in needs else needs
