"""What a recipe compares, how large it is and how much a distilled step costs, measured."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import nn

from benchmarks.speed.measure import interleaved
from reviewkd_det.d2.config import load_config
from reviewkd_det.d2.teacher.source import read_teacher

__all__ = ["recipes_table"]

IMAGES = 2  # in a timed batch


def recipes_table(paths: Sequence[Path], size: tuple[int, int], repeats: int) -> str:
    """One row per recipe; nothing is downloaded, all weights are random.

    Args:
        paths: the recipes.
        size: (H, W) of the images in a timed step.
        repeats: timed steps of each kind; the median counts.
    """
    headers = [
        "recipe", "levels", "weight", "teacher's backbone", "student", "in training only",
        "distilled step / plain step",
    ]  # fmt: skip
    rows = [_row(path, size, repeats) for path in paths]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _row(path: Path, size: tuple[int, int], repeats: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        model = _build(load_config(path), Path(folder)).train()
    method = model.methods["ReviewKD"]
    batch = _batch(size)
    seconds = interleaved(
        {
            "plain": lambda: _step(model.student, batch),
            "distilled": lambda: _step(model, batch),
        },
        repeats,
    )
    return [
        path.stem,
        f"{method.in_features[0]} to {method.in_features[-1]}",
        f"{method.loss_weight:g}",
        _millions(model.teacher.module.backbone),
        _millions(model.student),
        _millions(model.methods),
        f"{seconds['distilled'].median / seconds['plain'].median:.2f}",
    ]


def _build(cfg: CfgNode, folder: Path) -> Any:
    """The recipe's model on the CPU, its teacher with random weights."""
    source = read_teacher(cfg.MODEL.DISTILL.TEACHER.CONFIG_FILE)
    holder = nn.Module()
    holder.backbone = source.build_backbone()
    torch.save({"model": holder.state_dict()}, folder / "teacher.pth")
    cfg.MODEL.DISTILL.TEACHER.WEIGHTS = str(folder / "teacher.pth")
    cfg.MODEL.DEVICE = "cpu"
    return build_model(cfg)


def _batch(size: tuple[int, int]) -> list[dict[str, Any]]:
    height, width = size
    corners = [(0.1, 0.1, 0.5, 0.6), (0.4, 0.3, 0.9, 0.9)]
    boxes = [[x1 * width, y1 * height, x2 * width, y2 * height] for x1, y1, x2, y2 in corners]
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.tensor(boxes))
    instances.gt_classes = torch.tensor([0, 1])
    instances.gt_masks = PolygonMasks(
        [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes]
    )
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    return [{"image": image, "instances": instances} for _ in range(IMAGES)]


def _step(model: nn.Module, batch: list[dict[str, Any]]) -> None:
    with EventStorage(start_iter=1):  # past the first, which reports the losses' ratio
        losses = model(batch)
        sum(losses.values()).backward()
    model.zero_grad(set_to_none=True)


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f} M"
