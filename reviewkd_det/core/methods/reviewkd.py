"""ReviewKD: levels fused from coarse to fine, against the teacher's. Chen et al., CVPR 2021.

"Distilling Knowledge via Knowledge Review", arXiv:2104.09044.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from reviewkd_det.core import settings
from reviewkd_det.core.fusion import FUSIONS, ReviewPath
from reviewkd_det.core.hcl import hierarchical_context_loss
from reviewkd_det.core.level_scale import LevelScale
from reviewkd_det.core.method import Method, Need, Side, Truth, View
from reviewkd_det.core.registry import register
from reviewkd_det.core.settings import AUTO, SettingError, setting, weight_setting

__all__ = ["ReviewDistiller", "ReviewKD"]

GROUPS = 32  # channels are normalised in as many groups by GN
MOST_MID_CHANNELS = 512  # taken without being asked for
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm2d, "SyncBN": nn.SyncBatchNorm, "GN": partial(nn.GroupNorm, GROUPS),
}  # fmt: skip


class ReviewDistiller(nn.Module):
    """Distil a teacher's levels into a student's. Chen et al., CVPR 2021, arXiv:2104.09044.

    Level lists run from high to low resolution; level i of the student, fused with all coarser
    ones, is compared with level i of the teacher.

    Args:
        student_channels: channels of each student level.
        teacher_channels: channels of each teacher level.
        mid_channels: channels shared by all fusions.
        fusion: how a level takes in the coarser ones, as `ReviewPath` takes it.
        norm: function from a channel count to a normalisation layer of the fusions.
        pool_sizes: sides of the pooled maps in the loss, in cells; () compares the full maps alone.

    Raises:
        ValueError: the levels do not fit, as in `ReviewPath`.
    """

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        mid_channels: int,
        *,
        fusion: str = "attention",
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        pool_sizes: Sequence[int] = (4, 2, 1),
    ) -> None:
        super().__init__()
        self.path = ReviewPath(
            student_channels, teacher_channels, mid_channels, fusion=fusion, norm=norm
        )
        self.teacher_channels = tuple(teacher_channels)
        self.pool_sizes = tuple(pool_sizes)

    def forward(
        self, student_levels: Sequence[Tensor], teacher_levels: Sequence[Tensor]
    ) -> list[Tensor]:
        """Compute one loss per level; the caller sums and weights them.

        Args:
            student_levels: (N, Cs, Hs, Ws) each.
            teacher_levels: (N, Ct, Ht, Wt) each, without gradient.

        Returns:
            The hierarchical context loss of each level, shape () each.

        Raises:
            ValueError: a wrong number of levels, wrong channels or batch size, or a teacher level
                that requires a gradient.
        """
        shapes = [tuple(level.shape) for level in teacher_levels]
        if [s[1:2] for s in shapes] != [(c,) for c in self.teacher_channels]:
            raise ValueError(
                f"teacher levels must be (N, C, H, W) with C = {list(self.teacher_channels)}; "
                f"got shapes {shapes}"
            )
        sizes = [(level.shape[-2], level.shape[-1]) for level in teacher_levels]
        fused_levels = self.path(student_levels, sizes)
        return [
            hierarchical_context_loss(fused, teacher, self.pool_sizes)
            for fused, teacher in zip(fused_levels, teacher_levels, strict=True)
        ]


@register("ReviewKD")
class ReviewKD(Method):
    """Compare all levels; see `ReviewDistiller`."""

    needs = Need.LEVELS
    remedy = "set TEACHER_SCALE there to rms"

    @dataclass(frozen=True, kw_only=True)
    class Settings(settings.Settings):
        """Settings of ReviewKD."""

        loss_weight: float | str = weight_setting(1.0, detection=AUTO)
        mid_channels: int = setting(
            0,
            "Channels shared by all fusions; 0 takes those of the student's coarsest level, "
            f"at most {MOST_MID_CHANNELS}.",
            least=0,
            detection=256,
        )
        norm: str = setting(
            "BN", "Normalisation in the fusions: BN, SyncBN or GN.", choices=(*NORMS,)
        )
        fusion: str = setting(
            "attention",
            'How a level takes in the coarser ones: "attention" is the method; "sum" leaves out '
            'its gates, "none" compares each level by itself.',
            choices=FUSIONS,
        )
        pool_sizes: tuple[int, ...] = setting(
            (4, 2, 1),
            "Sides of the pooled maps in the loss, in cells; () compares the full maps alone.",
            above=0,
        )
        teacher_scale: str = setting(
            "none",
            '"none" compares with the teacher\'s features as they are; "rms" first divides each '
            "level by its root mean square over the first batches, so that one LOSS_WEIGHT suits "
            "any teacher.",
            choices=("none", "rms"),
        )

    def __init__(self, settings: "ReviewKD.Settings", student: Side, teacher: Side) -> None:
        super().__init__(settings, student, teacher)
        self.names = tuple(level.name for level in student.levels)
        student_channels, teacher_channels = (
            [level.channels for level in side.levels] for side in (student, teacher)
        )
        mid_channels = settings.mid_channels or min(MOST_MID_CHANNELS, student_channels[-1])
        widths = [mid_channels, *teacher_channels]
        if settings.norm == "GN" and any(width % GROUPS for width in widths):
            rule = f"be BN or SyncBN where MID_CHANNELS and the teacher's channels, {widths}, are "
            raise SettingError("norm", f"{rule}not multiples of {GROUPS}", "GN")
        self.distiller = ReviewDistiller(
            student_channels,
            teacher_channels,
            mid_channels,
            fusion=settings.fusion,
            norm=NORMS[settings.norm],
            pool_sizes=settings.pool_sizes,
        )
        self.teacher_scale = (
            LevelScale(len(self.names), names=self.names)
            if settings.teacher_scale == "rms"
            else None
        )

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the hierarchical context loss of each level."""
        levels = teacher.levels
        if self.teacher_scale is not None:
            levels = self.teacher_scale(levels)
        losses = self.distiller(student.levels, levels)
        return dict(zip(self.names, losses, strict=True))
