"""The result of a run."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from fvcore.common.config import CfgNode
from torch import nn

from classification.data import Loader

__all__ = ["describe", "last_line", "summarize"]


def describe(cfg: CfgNode, student: nn.Module, accelerator: Accelerator) -> str:
    """What is trained, with what, and where, in a line."""
    methods = " + ".join(cfg.DISTILL.METHODS)
    parameters = sum(p.numel() for p in student.parameters())
    source = f" by {methods} from {cfg.TEACHER.NAME}" if methods else " without a teacher"
    return (
        f"Training {cfg.MODEL.NAME} ({parameters:,} parameters){source}, on "
        f"{accelerator.num_processes} x {accelerator.device.type}"
    )


def summarize(
    cfg: CfgNode, progress: dict[str, Any], student: nn.Module, train: Loader
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        cfg: of the run.
        progress: of the run after its last epoch.
        student: what was trained.
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


def last_line(summary: dict[str, Any], folder: Path) -> str:
    """The result in a line."""
    scores = [
        f"{kind} epoch {at['epoch']} top-1 {at['top1']:.2f} top-5 {at['top5']:.2f}"
        for kind, at in (("last", summary["last"]), ("best", summary["best"]))
    ]
    return (
        f"{summary['model']}: {'; '.join(scores)}; seed {summary['seed']}; "
        f"{summary['wall_seconds']:.0f} s, {summary['images_per_second']:.0f} images/s; {folder}"
    )
