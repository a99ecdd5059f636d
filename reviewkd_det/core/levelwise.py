"""Methods that compare each level by itself.

Shapes: a level is (N, C, H, W).
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from reviewkd_det.core.method import Level, Method, Need, Side, Truth, View
from reviewkd_det.core.settings import SettingError, Settings, setting

__all__ = ["LevelSettings", "LevelwiseMethod"]


@dataclass(frozen=True, kw_only=True)
class LevelSettings(Settings):
    """Settings of a method that compares each level by itself."""

    levels: tuple[int, ...] = setting(
        (), "Positions of the levels compared, 0 being the finest; () takes all.", least=0
    )


class LevelwiseMethod(Method):
    """Sum a loss over levels, of which each student level goes through an adapter first.

    A subclass gives `compare`, and `build_adapter` where the student's level needs one.
    """

    needs = Need.LEVELS
    Settings = LevelSettings

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        super().__init__(settings, student, teacher)
        pairs = list(zip(student.levels, teacher.levels, strict=True))
        self.positions = settings.levels or self.choose_levels(len(pairs))
        if max(self.positions) >= len(pairs):
            raise SettingError(
                "levels", f"hold positions from 0 to {len(pairs) - 1}", settings.levels
            )
        if len(set(self.positions)) != len(self.positions):
            raise SettingError("levels", "name each level once", settings.levels)
        chosen = [pairs[position] for position in self.positions]
        self.names = tuple(ours.name for ours, _ in chosen)
        self.adapters = nn.ModuleList(self.build_adapter(*pair) for pair in chosen)

    def choose_levels(self, count: int) -> tuple[int, ...]:
        """Choose the positions, out of so many levels, where the settings name none."""
        return tuple(range(count))

    def build_adapter(self, student: Level, teacher: Level) -> nn.Module:
        """Make what the student's level goes through before it is compared."""
        return nn.Identity()

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss of one level, shape ().

        Args:
            student: the student's level behind its adapter.
            teacher: the teacher's level.
        """

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss of each level."""
        return {
            name: self.compare(adapt(student.levels[position]), teacher.levels[position])
            for name, position, adapt in zip(self.names, self.positions, self.adapters, strict=True)
        }
