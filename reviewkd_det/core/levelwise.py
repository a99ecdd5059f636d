"""Methods that compare each level by itself.

Shapes: a level is (N, C, H, W).
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from reviewkd_det.core.method import Level, Method, Need, Side, Truth, View
from reviewkd_det.core.settings import SettingError, Settings, setting

__all__ = ["LevelMethod", "LevelSettings", "LevelwiseMethod", "check_positions", "maps_of"]


def maps_of(levels: Sequence[Level]) -> tuple[int, ...]:
    """Positions of the levels that are maps of several cells; of all where none is."""
    found = tuple(i for i, level in enumerate(levels) if level.size != (1, 1))
    return found or tuple(range(len(levels)))


def check_positions(positions: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Check positions among so many levels, and give them back.

    Raises:
        SettingError: one is not there, or is named twice.
    """
    if positions and max(positions) >= count:
        raise SettingError("levels", f"hold positions from 0 to {count - 1}", positions)
    if len(set(positions)) != len(positions):
        raise SettingError("levels", "name each level once", positions)
    return positions


@dataclass(frozen=True, kw_only=True)
class LevelSettings(Settings):
    """Settings of a method that compares each level by itself."""

    levels: tuple[int, ...] = setting(
        (), "Positions of the levels compared, 0 being the finest; () takes all.", least=0
    )


class LevelMethod(Method):
    """Sum a loss over levels, of which each student level goes through an adapter first.

    A subclass gives `compare_at`, and `build_adapter` where the student's level needs one.
    """

    needs = Need.LEVELS
    Settings = LevelSettings

    def __init__(self, settings: Any, student: Side, teacher: Side) -> None:
        super().__init__(settings, student, teacher)
        pairs = list(zip(student.levels, teacher.levels, strict=True))
        named = check_positions(settings.levels, len(pairs))
        self.positions = named or self.choose_levels(teacher.levels)
        chosen = [pairs[position] for position in self.positions]
        self.names = tuple(ours.name for ours, _ in chosen)
        self.adapters = nn.ModuleList(self.build_adapter(*pair) for pair in chosen)

    def choose_levels(self, levels: Sequence[Level]) -> tuple[int, ...]:
        """Choose the positions, out of the teacher's levels, where the settings name none."""
        return tuple(range(len(levels)))

    def build_adapter(self, student: Level, teacher: Level) -> nn.Module:
        """Make what the student's level goes through before it is compared."""
        return nn.Identity()

    @abstractmethod
    def compare_at(self, index: int, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the loss of one level, shape (), by its place and what is kept for it.

        Args:
            index: place of the level among those that are compared.
            student: the student's level behind its adapter.
            teacher: the teacher's level.
            truth: what is known of the batch.
        """

    def forward(self, student: View, teacher: View, truth: Truth) -> dict[str, Tensor]:
        """Compute the loss of each level."""
        chosen = zip(self.names, self.positions, self.adapters, strict=True)
        return {
            name: self.compare_at(
                index, adapt(student.levels[position]), teacher.levels[position], truth
            )
            for index, (name, position, adapt) in enumerate(chosen)
        }


class LevelwiseMethod(LevelMethod):
    """Compare all levels in the same way; a subclass gives `compare`."""

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss of one level, shape ().

        Args:
            student: the student's level behind its adapter.
            teacher: the teacher's level.
        """

    def compare_at(self, index: int, student: Tensor, teacher: Tensor, truth: Truth) -> Tensor:
        """Compute the loss of one level as that of any other."""
        return self.compare(student, teacher)
