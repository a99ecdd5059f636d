"""Which class of a student each class of a teacher is."""

import logging
from collections import Counter
from collections.abc import Sequence

from reviewkd_det.common.data.classes import describe_classes

__all__ = ["match_names"]

logger = logging.getLogger(__name__)


def match_names(
    teacher_names: Sequence[str] | None,
    teacher_count: int,
    student_names: Sequence[str] | None,
    student_count: int,
) -> dict[int, int]:
    """Map a teacher's classes to a student's, by name where both are known, else one to one.

    Names are compared whatever their case and the spaces around them, unless a list has two that
    differ by these alone.

    Args:
        teacher_names: names of the teacher's classes; None where they are not known.
        teacher_count: number of the teacher's classes.
        student_names: names of the student's classes; None where they are not known.
        student_count: number of the student's classes.

    Returns:
        The student's class by the teacher's, without those that the student does not know.

    Raises:
        ValueError: no name is common, a name stands twice in lists that differ, or names are not
            known and the numbers differ.
    """
    if teacher_names is None or student_names is None:
        if teacher_count != student_count:
            raise ValueError(
                "student and teacher must have equally many classes where the names of one are not "
                f"known; got {student_count} and {teacher_count}"
            )
        if student_names is not None:
            logger.warning(
                "The class names of the teacher are not known; its classes are taken for those of "
                "the student, in the same order: %s",
                describe_classes(student_names),
            )
        return {index: index for index in range(student_count)}
    if list(teacher_names) == list(student_names):
        return {index: index for index in range(student_count)}
    lists = {"student": student_names, "teacher": teacher_names}
    compared = _plain if all(len(set(map(_plain, x))) == len(x) for x in lists.values()) else str
    for owner, names in lists.items():
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(
                f"classes mapped by name must have different names; got '{twice[0]}' twice in the "
                f"{owner}'s, {describe_classes(names)}"
            )
    places = {compared(name): index for index, name in enumerate(student_names)}
    found = {
        index: places[compared(name)]
        for index, name in enumerate(teacher_names)
        if compared(name) in places
    }
    if not found:
        raise ValueError(
            "student and teacher must have a class name in common; got "
            f"{', '.join(student_names[:5])} and {', '.join(teacher_names[:5])}"
        )
    if lacking := [x for i, x in enumerate(student_names) if i not in found.values()]:
        logger.warning(
            "The teacher does not know %d of the student's %d classes, which get no labels from "
            "it: %s", len(lacking), len(student_names), ", ".join(lacking[:10]),
        )  # fmt: skip
    return found


def _plain(name: str) -> str:
    return name.strip().casefold()
