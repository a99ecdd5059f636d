"""ReviewKD as one module: fuse the student's levels, compare each with the teacher's."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from reviewkd_det.core.fusion import ReviewPath
from reviewkd_det.core.hcl import hierarchical_context_loss

__all__ = ["ReviewDistiller"]


class ReviewDistiller(nn.Module):
    """Distil a teacher's levels into a student's. Chen et al., CVPR 2021, arXiv:2104.09044.

    Level lists run from high to low resolution; level i of the student, fused with all coarser
    ones, is compared with level i of the teacher.

    Args:
        student_channels: channels of each student level.
        teacher_channels: channels of each teacher level.
        mid_channels: channels shared by all fusions.
        fusion: see `ReviewPath`.
        norm: makes the fusions' normalisation layers from a channel count.
        pool_sizes: sides of the pooled maps in the loss, in cells; () compares the full maps alone.

    Raises:
        ValueError: see `ReviewPath`.
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
