"""What a run says before its first step and after its last, and its result."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from fvcore.common.config import CfgNode
from torch import nn

from classification.cost import distillation_cost
from classification.data import Loader
from classification.distilled import DistilledClassifier
from reviewkd_det.common.console.commands import script_command, shown_path
from reviewkd_det.common.runs.result import comparison_command, result_block

__all__ = ["describe", "final_block", "summarize"]


def describe(cfg: CfgNode, classifier: DistilledClassifier, accelerator: Accelerator) -> str:
    """What is trained, from what it learns, where, and what that costs, in a line."""
    name = f"Training {cfg.MODEL.NAME} ({_parameters(classifier.student)} parameters)"
    where = f"on {accelerator.num_processes} x {accelerator.device.type}"
    if classifier.teacher is None:
        return f"{name} without a teacher, {where}"
    levels = len(classifier.student.names)
    at = {"ReviewKD": f" at {levels} levels"}
    methods = " + ".join(f"{method}{at.get(method, '')}" for method in cfg.DISTILL.METHODS)
    line = (
        f"{name} by {methods} from {cfg.TEACHER.NAME} "
        f"({_parameters(classifier.teacher.module)}), {where}; "
        f"{_parameters(classifier.methods)} parameters more in training only"
    )
    cost = distillation_cost(classifier, cfg.INPUT.SIZE)
    if cost is None:
        return line
    return (
        f"{line}; for each image teacher and methods add {cost:.2f} times the multiply-adds of the "
        "student (forward and backward)"
    )


def _parameters(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()):,}"


def summarize(
    cfg: CfgNode, progress: dict[str, Any], student: nn.Module, train: Loader
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        cfg: config of the run.
        progress: progress of the run after its last epoch.
        student: network that was trained.
        train: loader of the training images.
    """
    return {
        "model": cfg.MODEL.NAME,
        "teacher": cfg.TEACHER.NAME if cfg.DISTILL.METHODS else "",
        "methods": list(cfg.DISTILL.METHODS),
        "data": cfg.DATA.NAME,
        "train_images": train.batches.length,
        "seed": cfg.SEED,
        "epochs": progress["epoch"],
        "teacher_top1": progress["teacher"] and progress["teacher"]["top1"],
        "top1": progress["last"]["top1"],
        "top5": progress["last"]["top5"],
        "last": progress["last"],
        "best": progress["best"],
        "parameters": sum(p.numel() for p in student.parameters()),
        "train_seconds": round(progress["train_seconds"], 2),
        "wall_seconds": round(progress["wall_seconds"], 2),
        "images_per_second": round(
            progress["epoch"] * train.images_per_epoch / progress["train_seconds"], 1
        ),
    }


def final_block(cfg: CfgNode, summary: dict[str, Any], folder: Path) -> str:
    """The result, its files, and what to do with them.

    Args:
        cfg: config of the run.
        summary: content of `summary.json`.
        folder: folder of the run.
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
    title = (
        f"Done: {summary['model']}, {summary['epochs']} epochs with seed {summary['seed']} in "
        f"{summary['wall_seconds']:.0f} s, {summary['images_per_second']:.0f} images/s"
    )
    return result_block(title, lines)
