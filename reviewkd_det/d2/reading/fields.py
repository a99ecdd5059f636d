"""What the heads of student and teacher are read from, and what was read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from reviewkd_det.core import Need
from reviewkd_det.d2.reading.taps import Call
from reviewkd_det.d2.teacher.heads import TeacherHeads

__all__ = ["Fields", "Heads"]


class Heads(NamedTuple):
    """What the heads are read from in one batch.

    Args:
        student: the student.
        calls: calls of its parts that were recorded.
        teacher: the teacher's heads.
        levels: the teacher's levels by name, of the images with labels.
        needs: what the methods need together.
    """

    student: Any
    calls: Mapping[str, list[Call]]
    teacher: TeacherHeads
    levels: Mapping[str, Tensor]
    needs: Need


@dataclass
class Fields:
    """Values of the fields of the student's `View`, the teacher's, and `Truth`, by name."""

    student: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)

    def add(self, other: "Fields") -> None:
        """Take in what another one has."""
        self.student |= other.student
        self.teacher |= other.teacher
        self.truth |= other.truth
