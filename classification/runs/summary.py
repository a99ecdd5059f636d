"""What a run says before its first step and after its last, and its result."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from fvcore.common.config import CfgNode
from torch import nn

from classification.config_checks import AVERAGE, taught
from classification.data import Data
from classification.distilled import DistilledClassifier
from classification.several import teacher_name
from reviewkd_det.common.console.commands import script_command, shown_path
from reviewkd_det.common.distill.cost import IMAGES, distillation_cost
from reviewkd_det.common.distill.describe import describe_methods, describe_parameters
from reviewkd_det.common.runs.result import comparison_command, result_block
from reviewkd_det.common.tensors.memory import max_gpu_memory
from reviewkd_det.core import Truth, View

__all__ = ["cost_of", "describe", "final_block", "summarize"]


def describe(cfg: CfgNode, classifier: DistilledClassifier, accelerator: Accelerator) -> str:
    """What is trained, from what it learns, where, and what that costs, in a line."""
    student = classifier.student
    name = f"{cfg.MODEL.NAME} ({describe_parameters(student)} parameters)"
    where = f"on {accelerator.num_processes} x {accelerator.device.type}"
    methods: Any = dict(classifier.methods.items())
    peers = f" beside {' and '.join(cfg.PEERS.NAMES)}" if cfg.PEERS.NAMES else ""
    if classifier.teacher is None:
        told = f", with {' and '.join(methods)}" if methods else ""
        return f"Training {name}{peers} without a teacher, {where}{told}"
    teacher = classifier.teacher.module
    levels = f"{len(student.names)} levels"
    cost = cost_of(classifier, cfg.INPUT.SIZE, cfg.TEACHER.SIZE)
    told = describe_methods(methods, levels, classifier.methods, cost, "the student")
    source = f"{teacher_name(cfg)} ({describe_parameters(teacher)})"
    if cfg.TEACHER.NAME == AVERAGE:
        source = "the average of its own weights"
    return f"Distilling {name}{peers} from {source}, {where}, with {told}"


def cost_of(
    classifier: DistilledClassifier, image_size: int, teacher_size: int = 0
) -> float | None:
    """Estimate what teacher and methods add, in the student.

    Args:
        classifier: with a teacher, in training mode, on any device; it is left as it is.
        image_size: side of its images in pixels.
        teacher_size: side of the images that the teacher sees; 0 for the same.

    Returns:
        As `distillation_cost`.
    """
    images, taught = (
        torch.empty(IMAGES, 3, size, size, device="meta")
        for size in (image_size, teacher_size or image_size)
    )
    truth = Truth(torch.zeros(IMAGES, dtype=torch.long, device="meta"))
    assert classifier.teacher is not None
    teacher, methods = classifier.teacher.module, list(classifier.methods.values())

    def views(student: View, taught: View) -> tuple[View, View, Truth]:
        return student, taught, truth

    return distillation_cost(classifier.student, images, teacher, taught, methods, views)  # type: ignore[arg-type]


def summarize(
    cfg: CfgNode, progress: dict[str, Any], student: nn.Module, data: Data
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        cfg: config of the run.
        progress: progress of the run after its last epoch.
        student: classifier that was trained.
        data: training and test data.
    """
    # One that was tested before the methods were taken away teaches no more.
    teacher = progress["teacher"] if cfg.DISTILL.METHODS else None
    return {
        "model": cfg.MODEL.NAME,
        "teacher": teacher_name(cfg) if taught(cfg) else "",
        "methods": list(cfg.DISTILL.METHODS),
        "data": cfg.DATA.NAME,
        "train_images": data.labeled_images,
        "unlabeled_images": data.unlabeled_images,
        "seed": cfg.SEED,
        "epochs": progress["epoch"],
        "stopped_early": progress["epoch"] < cfg.SOLVER.EPOCHS,
        "teacher_top1": teacher and teacher["top1"],
        "peers": progress.get("peers", []),
        "top1": progress["last"]["top1"],
        "top5": progress["last"]["top5"],
        "last": progress["last"],
        "best": progress["best"],
        "parameters": sum(p.numel() for p in student.parameters()),
        "max_memory_mb": max_gpu_memory(),
        "train_seconds": round(progress["train_seconds"], 2),
        "wall_seconds": round(progress["wall_seconds"], 2),
        "images_per_second": round(
            progress["epoch"] * data.train.images_per_epoch / progress["train_seconds"], 1
        ),
    }


def final_block(cfg: CfgNode, summary: dict[str, Any], folder: Path) -> str:
    """The result, its files, and what to do with them.

    Args:
        cfg: config of the run.
        summary: result of the run, from `summarize`.
        folder: output folder of the run.
    """
    config = ["--config-file", shown_path(folder / "config.yaml")]
    weights = ["--weights", shown_path(folder / "last.pth")]
    teacher_file = cfg.TEACHER.WEIGHTS if cfg.DISTILL.METHODS else ""
    lines = {
        f"{kind}:": f"top-1 {at['top1']:.2f}, top-5 {at['top5']:.2f} after epoch {at['epoch']}; "
        f"{shown_path(folder / f'{kind}.pth')}"
        for kind, at in (("last", summary["last"]), ("best", summary["best"]))
    } | {
        "evaluate it:": script_command("classification/evaluate.py", *config, *weights),
        "compare it:": comparison_command(folder, teacher_file),
    }
    early = ", stopped early" if summary.get("stopped_early") else ""
    title = (
        f"Done: {summary['model']}, {summary['epochs']} epochs with seed {summary['seed']} in "
        f"{summary['wall_seconds']:.0f} s, {summary['images_per_second']:.0f} images/s{early}"
    )
    return result_block(title, lines)
