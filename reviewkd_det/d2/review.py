"""ReviewKD between two Detectron2 backbones: levels matched by name, channels read from both."""

from collections.abc import Mapping, Sequence
from functools import partial

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from reviewkd_det.core import ReviewDistiller, warmup_factor

__all__ = ["PyramidReview", "common_levels"]

Shapes = Mapping[str, ShapeSpec]


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
        if settings.NORM not in ("BN", "SyncBN", "GN"):
            raise ValueError(
                f"MODEL.DISTILL.REVIEWKD.NORM must be BN, SyncBN or GN; got {settings.NORM}"
            )
        names = common_levels(settings.IN_FEATURES, student, teacher)
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
            `loss_reviewkd`, weighted, shape (); the scalars `loss_reviewkd/LEVEL` sum to it.
        """
        storage = get_event_storage()
        factor = self.loss_weight * warmup_factor(storage.iter, self.warmup_iters)
        losses = self.distiller(
            [student[name] for name in self.in_features],
            [teacher[name] for name in self.in_features],
        )
        losses = [factor * loss for loss in losses]
        for name, loss in zip(self.in_features, losses, strict=True):
            storage.put_scalar(f"loss_reviewkd/{name}", loss.item())
        return {"loss_reviewkd": sum(losses[1:], start=losses[0])}


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
