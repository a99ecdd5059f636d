"""What a recipe compares, how large it is and how much a distilled step costs, measured."""

from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate
from torch import nn

from benchmarks.speed.measure import interleaved
from benchmarks.speed.models import build_distilled, name_levels, synthetic_batch
from benchmarks.speed.parts import Step
from reviewkd_det.d2.config import load_config

__all__ = ["recipes_table"]

IMAGES = 2  # in a timed batch


def recipes_table(paths: Sequence[Path], size: tuple[int, int], repeats: int) -> str:
    """One row per recipe; nothing is downloaded, all weights are random.

    Args:
        paths: config files of the recipes.
        size: height and width of the images in a timed step.
        repeats: number of timed turns of each kind of step; the median counts.
    """
    headers = [
        "recipe", "levels", "weight", "teacher's backbone", "student", "in training only",
        "distilled step / plain step",
    ]  # fmt: skip
    rows = [_row(path, size, repeats) for path in paths]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _row(path: Path, size: tuple[int, int], repeats: int) -> list[str]:
    cfg = load_config(path)
    cfg.MODEL.DEVICE = "cpu"
    batch = synthetic_batch(size, IMAGES)
    model = build_distilled(cfg, batch).model
    levels = name_levels(model, batch)
    settings = cfg.MODEL.DISTILL[cfg.MODEL.DISTILL.METHODS[0].upper()]
    seconds = interleaved(
        {
            "plain": Step(model.student, [model.student], [], batch, "float32"),
            "distilled": Step(model, [model.student, model.methods], [], batch, "float32"),
        },
        repeats,
    )
    return [
        path.stem,
        f"{levels[0]} to {levels[-1]}",
        f"{settings.LOSS_WEIGHT:g}",
        _millions(model.teacher.module.backbone),
        _millions(model.student),
        _millions(model.methods),
        f"{seconds['distilled'].median / seconds['plain'].median:.2f}",
    ]


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M"
