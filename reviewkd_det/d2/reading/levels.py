"""ReviewKD between two Detectron2 backbones: levels matched by name, channels read from both."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from detectron2.layers import ShapeSpec, get_norm
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from reviewkd_det.core import FUSIONS, FrozenTeacher, LevelScale, ReviewDistiller, warmup_factor
from reviewkd_det.d2.reading.taps import Call, only_call

__all__ = ["PyramidReview", "common_levels"]

Shapes = Mapping[str, ShapeSpec]
Factory = Callable[[Any, Any], "PyramidReview"]
KEY = "MODEL.DISTILL.REVIEWKD"
GROUPS = 32  # of Detectron2's group norm


class PyramidReview(nn.Module):
    """The ReviewKD loss of a detector's pyramid.

    Args:
        in_features: names of the levels compared, from high to low resolution.
        distiller: the method, for these levels in this order.
        loss_weight: factor of the summed loss.
        warmup_iters: iterations over which that factor grows from 0.
        teacher_scale: divides the teacher's levels by their measured scale; None leaves them.
    """

    taps = ("backbone",)

    def __init__(
        self,
        in_features: Sequence[str],
        distiller: ReviewDistiller,
        *,
        loss_weight: float,
        warmup_iters: int,
        teacher_scale: LevelScale | None = None,
    ) -> None:
        super().__init__()
        self.in_features = tuple(in_features)
        self.distiller = distiller
        self.loss_weight = loss_weight
        self.warmup_iters = warmup_iters
        self.teacher_scale = teacher_scale

    @classmethod
    def factory(
        cls,
        *,
        in_features: Sequence[str] = (),
        mid_channels: int = 256,
        norm: str = "BN",
        fusion: str = "attention",
        pool_sizes: Sequence[int] = (4, 2, 1),
        loss_weight: float = 1.0,
        warmup_iters: int = 0,
        teacher_scale: str = "none",
    ) -> Factory:
        """What builds the method once both sides are there; channels are read from them.

        Args:
            in_features: names of the levels compared; empty means every level both have.
            mid_channels: channels shared by all fusions.
            norm: BN, SyncBN or GN, in the fusions.
            fusion: attention, or sum or none, which leave out the gates or the fusion.
            pool_sizes: sides of the pooled maps in the loss, in cells.
            loss_weight: factor of the summed loss.
            warmup_iters: iterations over which that factor grows from 0.
            teacher_scale: none, or rms to divide each teacher level by its root mean square.

        Returns:
            A function of the student detector and the `TeacherBackbone`.

        Raises:
            ValueError: a setting is out of range; the levels are checked when it is called.
        """
        if mid_channels < 1:
            raise ValueError(f"{KEY}.MID_CHANNELS must be positive; got {mid_channels}")
        if warmup_iters < 0:
            raise ValueError(f"{KEY}.WARMUP_ITERS must not be negative; got {warmup_iters}")
        if norm not in ("BN", "SyncBN", "GN"):
            raise ValueError(f"{KEY}.NORM must be BN, SyncBN or GN; got {norm}")
        if fusion not in FUSIONS:
            raise ValueError(f"{KEY}.FUSION must be {', '.join(FUSIONS)}; got {fusion}")
        if any(type(size) is not int or size < 1 for size in pool_sizes):
            raise ValueError(f"{KEY}.POOL_SIZES must be positive integers; got {pool_sizes}")
        if teacher_scale not in ("none", "rms"):
            raise ValueError(f"{KEY}.TEACHER_SCALE must be none or rms; got {teacher_scale}")

        def build(student: Any, teacher: Any) -> PyramidReview:
            shapes = [model.backbone.output_shape() for model in (student, teacher)]
            names = common_levels(in_features, *shapes)
            student_channels, teacher_channels = (
                [levels[name].channels for name in names] for levels in shapes
            )
            widths = [mid_channels, *teacher_channels]
            if norm == "GN" and any(width % GROUPS for width in widths):
                raise ValueError(
                    f"{KEY}.NORM GN must have MID_CHANNELS and the teacher's channels in multiples "
                    f"of {GROUPS}; got {widths}"
                )
            return cls(
                names,
                ReviewDistiller(
                    student_channels,
                    teacher_channels,
                    mid_channels,
                    fusion=fusion,
                    norm=partial(get_norm, norm),
                    pool_sizes=pool_sizes,
                ),
                loss_weight=loss_weight,
                warmup_iters=warmup_iters,
                teacher_scale=LevelScale(len(names)) if teacher_scale == "rms" else None,
            )

        return build

    def forward(
        self,
        calls: Mapping[str, list[Call]],
        teacher: FrozenTeacher,
        teacher_levels: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Compute the loss and put each level's share of it into Detectron2's event storage.

        Args:
            calls: the student's backbone's only call; its levels by name, (N, Cs, H, W) each.
            teacher: not used.
            teacher_levels: levels by name, (N, Ct, H, W) each, without gradient.

        Returns:
            `loss_reviewkd`, weighted, shape (); the scalars `loss_reviewkd/LEVEL`, means over
            the processes in the first one, sum to it.
        """
        storage = get_event_storage()
        factor = self.loss_weight * warmup_factor(storage.iter, self.warmup_iters)
        student_levels = only_call(calls, "backbone").output
        losses = self.distiller(
            [student_levels[name] for name in self.in_features],
            self._scaled([teacher_levels[name] for name in self.in_features]),
        )
        shares = factor * torch.stack(losses)  # (levels,)
        logged = comm.reduce_dict(dict(zip(self.in_features, shares.detach(), strict=True)))
        # One transfer for all levels: each waits for the GPU.
        for name, share in zip(logged, torch.stack(list(logged.values())).tolist(), strict=True):
            storage.put_scalar(f"loss_reviewkd/{name}", share)
        return {"loss_reviewkd": shares.sum()}

    def _scaled(self, levels: list[Tensor]) -> list[Tensor]:
        if self.teacher_scale is None:
            return levels
        was_fixed = self.teacher_scale.is_fixed
        levels = self.teacher_scale(levels)
        if self.teacher_scale.is_fixed and not was_fixed:
            scales = zip(self.in_features, self.teacher_scale.scales.tolist(), strict=True)
            text = ", ".join(f"{name} {scale:.3g}" for name, scale in scales)
            logging.getLogger(__name__).info("The teacher's features are divided by: %s", text)
        return levels


def common_levels(wanted: Sequence[str], student: Shapes, teacher: Shapes) -> list[str]:
    """Choose the levels to compare, from high to low resolution.

    Args:
        wanted: level names; empty means every level both sides have.
        student: the student's `output_shape()`.
        teacher: the teacher's.

    Raises:
        ValueError: a name that one side lacks, no common level, or strides that differ.
    """
    key = f"{KEY}.IN_FEATURES"
    for side, shapes in (("student", student), ("teacher", teacher)):
        for name in wanted:
            if name not in shapes:
                raise ValueError(
                    f"{key} names '{name}', which the {side}'s backbone does not output; "
                    f"it outputs {', '.join(shapes)}"
                )
    if len(set(wanted)) != len(wanted):
        raise ValueError(f"{key} must name each level once; got {', '.join(wanted)}")
    names = wanted or [name for name in student if name in teacher]
    if not names:
        raise ValueError(
            "student and teacher must have a pyramid level in common; "
            f"the student's backbone outputs {_described(student)}, "
            f"the teacher's {_described(teacher)}"
        )
    for name in names:
        if student[name].stride != teacher[name].stride:
            raise ValueError(
                f"level '{name}' must have one stride on both sides; got "
                f"{student[name].stride} in the student and {teacher[name].stride} in the teacher"
            )
    return sorted(names, key=lambda name: student[name].stride)


def _described(shapes: Shapes) -> str:
    return ", ".join(
        f"{name} (stride {shape.stride}, {shape.channels} channels)"
        for name, shape in shapes.items()
    )
