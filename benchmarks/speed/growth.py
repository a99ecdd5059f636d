"""How the cost of fusions and loss grows with the images, the levels, the channels and the batch.

Shapes: level l of N images of H x W pixels is (N, C_l, H / stride_l, W / stride_l), rounded up.
"""

from collections.abc import Sequence
from functools import partial
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.layers import get_norm
from detectron2.modeling import build_backbone
from torch import nn

from benchmarks.speed.measure import interleaved
from benchmarks.speed.parts import distillation
from benchmarks.textbook import TextbookReview
from reviewkd_det.core import ReviewDistiller
from reviewkd_det.d2.config import plain_config
from reviewkd_det.d2.reading.levels import common_levels
from reviewkd_det.d2.teacher.source import read_teacher

__all__ = ["Point", "Pyramid", "fit_slope", "growth", "read_pyramid"]

SIDES = (0.25, 0.5, 1)  # of the images, as parts of the given size
MID_CHANNELS = (64, 128, 256)
BATCHES = (1, 2, 4)
METHODS: dict[str, Any] = {"ours": ReviewDistiller, "textbook": TextbookReview}
Growth = dict[str, dict[str, Any]]


class Pyramid(NamedTuple):
    """The levels that a recipe compares, from high to low resolution."""

    student_channels: tuple[int, ...]
    teacher_channels: tuple[int, ...]
    strides: tuple[int, ...]
    norm: str = "BN"  # of the fusions


class Point(NamedTuple):
    """What one measurement is made at."""

    size: tuple[int, int]  # (H, W) of the images
    levels: int
    mid_channels: int
    batch: int


def read_pyramid(cfg: CfgNode) -> Pyramid:
    """The pyramid of a recipe; no weights are read."""
    settings = cfg.MODEL.DISTILL
    source = read_teacher(settings.TEACHER.CONFIG_FILE, "none", settings.TEACHER.OPTS)
    student, teacher = (
        backbone.output_shape()
        for backbone in (build_backbone(plain_config(cfg)), source.build_backbone())
    )
    names = common_levels(settings.REVIEWKD.IN_FEATURES, student, teacher)
    return Pyramid(
        tuple(student[name].channels for name in names),
        tuple(teacher[name].channels for name in names),
        tuple(student[name].stride for name in names),
        settings.REVIEWKD.NORM,
    )


def growth(
    pyramid: Pyramid, base: Point, repeats: int, *, device: str = "cpu", precision: str = "float32"
) -> Growth:
    """Time ours and the textbook's, forward and backward, around a base point.

    Args:
        pyramid: the levels.
        base: what stays fixed while one thing varies; its size is the largest.
        repeats: calls of each that count; the median does.
        device: cpu or cuda.
        precision: float32, float16 or bfloat16.

    Returns:
        By what varies: its `values`, the seconds of `ours` and `textbook`, and their `_slope`s, the
        exponents of power laws; not for levels, which differ in size.

    Raises:
        ValueError: the images are so small that batch norm finds a single cell in a level.
    """
    height, width = base.size
    sizes = [(max(1, int(height * part)), max(1, int(width * part))) for part in SIDES]
    points = {
        "area": [base._replace(size=size) for size in sizes],
        "levels": [base._replace(levels=i + 1) for i in range(base.levels)],
        "mid_channels": [base._replace(mid_channels=mid) for mid in MID_CHANNELS],
        "batch": [base._replace(batch=batch) for batch in BATCHES],
    }
    for point in (point for row in points.values() for point in row):
        _check(point, pyramid, base)
    measured = {}
    for name, row in points.items():
        seconds = [_at(point, pyramid, repeats, device, precision) for point in row]
        values = [_value(point, name) for point in row]
        result: dict[str, Any] = {"values": values}
        for kind in METHODS:
            result[kind] = [x[kind] for x in seconds]
            if name != "levels":
                result[f"{kind}_slope"] = fit_slope(values, result[kind])
        measured[name] = result
    return measured


def _check(point: Point, pyramid: Pyramid, base: Point) -> None:
    stride = pyramid.strides[point.levels - 1]
    if point.batch * ceil(point.size[0] / stride) * ceil(point.size[1] / stride) == 1:
        raise ValueError(
            f"--growth-size must leave two cells of stride {stride} or more in {point.batch} "
            f"image of {point.size[0]} x {point.size[1]}; got {base.size[0]} {base.size[1]}"
        )


def _value(point: Point, name: str) -> int:
    return point.size[0] * point.size[1] if name == "area" else getattr(point, name)


def _at(
    point: Point, pyramid: Pyramid, repeats: int, device: str, precision: str
) -> dict[str, float]:
    generator = torch.Generator().manual_seed(point.batch)
    student, teacher = (
        [
            torch.randn(
                point.batch, count, *(ceil(x / stride) for x in point.size), generator=generator
            ).to(device)
            for count, stride in zip(channels, pyramid.strides[: point.levels], strict=True)
        ]
        for channels in (
            pyramid.student_channels[: point.levels],
            pyramid.teacher_channels[: point.levels],
        )
    )
    calls = {}
    for kind, make in METHODS.items():
        review: nn.Module = make(
            [x.shape[1] for x in student],
            [x.shape[1] for x in teacher],
            point.mid_channels,
            norm=partial(get_norm, pyramid.norm),
        )
        calls[kind] = distillation(review.to(device), student, teacher, precision)
    return {kind: x.median for kind, x in interleaved(calls, repeats, device).items()}


def fit_slope(values: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent of the power law nearest to some points, by least squares of the logarithms."""
    return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])
