"""ReviewKD between two Detectron2 backbones: levels matched by name, channels read from both."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from reviewkd_det.core import ReviewDistiller, warmup_factor

__all__ = ["PyramidReview", "common_levels"]

Shapes = Mapping[str, ShapeSpec]
GROUPS = 32  # of Detectron2's group norm


class PyramidReview(nn.Module):
    """The ReviewKD loss of a detector's pyramid.

    Args:
        in_features: names of the levels compared, from high to low resolution.
        distiller: the method, for these levels in this order.
        loss_weight: factor of the summed loss.
        warmup_iters: iterations over which that factor grows from 0.
    """

    def __init__(
        self,
        in_features: Sequence[str],
        distiller: ReviewDistiller,
        *,
        loss_weight: float,
        warmup_iters: int,
    ) -> None:
        super().__init__()
        self.in_features = tuple(in_features)
        self.distiller = distiller
        self.loss_weight = loss_weight
        self.warmup_iters = warmup_iters

    @classmethod
    def from_config(cls, cfg: CfgNode, student: Shapes, teacher: Shapes) -> "PyramidReview":
        """Build it from `MODEL.DISTILL.REVIEWKD` and the `output_shape()` of both backbones."""
        settings = cfg.MODEL.DISTILL.REVIEWKD
        key = "MODEL.DISTILL.REVIEWKD"
        if settings.MID_CHANNELS < 1:
            raise ValueError(f"{key}.MID_CHANNELS must be positive; got {settings.MID_CHANNELS}")
        if settings.WARMUP_ITERS < 0:
            raise ValueError(
                f"{key}.WARMUP_ITERS must not be negative; got {settings.WARMUP_ITERS}"
            )
        if settings.NORM not in ("BN", "SyncBN", "GN"):
            raise ValueError(f"{key}.NORM must be BN, SyncBN or GN; got {settings.NORM}")
        names = common_levels(settings.IN_FEATURES, student, teacher)
        widths = [settings.MID_CHANNELS, *(teacher[name].channels for name in names)]
        if settings.NORM == "GN" and any(width % GROUPS for width in widths):
            raise ValueError(
                f"{key}.NORM GN must have MID_CHANNELS and the teacher's channels in multiples of "
                f"{GROUPS}; got {widths}"
            )
        distiller = ReviewDistiller(
            [student[name].channels for name in names],
            [teacher[name].channels for name in names],
            settings.MID_CHANNELS,
            norm=partial(get_norm, settings.NORM),
        )
        return cls(
            names,
            distiller,
            loss_weight=settings.LOSS_WEIGHT,
            warmup_iters=settings.WARMUP_ITERS,
        )

    def forward(
        self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compute the loss and put each level's share of it into Detectron2's event storage.

        Args:
            student: levels by name, (N, Cs, H, W) each.
            teacher: levels by name, (N, Ct, H, W) each, without gradient.

        Returns:
            `loss_reviewkd`, weighted, shape (); this process's scalars `loss_reviewkd/LEVEL` sum
            to it.
        """
        storage = get_event_storage()
        factor = self.loss_weight * warmup_factor(storage.iter, self.warmup_iters)
        losses = self.distiller(
            [student[name] for name in self.in_features],
            [teacher[name] for name in self.in_features],
        )
        shares = factor * torch.stack(losses)  # (levels,)
        # One transfer for all levels: each waits for the GPU.
        for name, share in zip(self.in_features, shares.tolist(), strict=True):
            storage.put_scalar(f"loss_reviewkd/{name}", share)
        return {"loss_reviewkd": shares.sum()}


def common_levels(wanted: Sequence[str], student: Shapes, teacher: Shapes) -> list[str]:
    """Choose the levels to compare, from high to low resolution.

    Args:
        wanted: level names; empty means every level both sides have.
        student: the student's `output_shape()`.
        teacher: the teacher's.

    Raises:
        ValueError: a name that one side lacks, no common level, or strides that differ.
    """
    key = "MODEL.DISTILL.REVIEWKD.IN_FEATURES"
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
            f"the student's backbone outputs {', '.join(student)}, "
            f"the teacher's {', '.join(teacher)}"
        )
    for name in names:
        if student[name].stride != teacher[name].stride:
            raise ValueError(
                f"level '{name}' must have one stride on both sides; got "
                f"{student[name].stride} in the student and {teacher[name].stride} in the teacher"
            )
    return sorted(names, key=lambda name: student[name].stride)
