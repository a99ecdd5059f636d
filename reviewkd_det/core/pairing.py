"""Which levels of two networks are compared."""

from collections.abc import Sequence

from reviewkd_det.core.method import Level

__all__ = ["pair_by_name", "pair_from_coarsest"]


def pair_by_name(
    student: Sequence[Level], teacher: Sequence[Level], wanted: Sequence[str] = (), key: str = ""
) -> list[str]:
    """Choose levels that have one name and one stride on both sides.

    Args:
        student: all levels of the student.
        teacher: all levels of the teacher.
        wanted: names of the levels compared; empty means every level both have.
        key: where the names are from, for error sentences.

    Returns:
        Their names, from high to low resolution.

    Raises:
        ValueError: a name that one side lacks or that is given twice, no common level, or strides
            that differ.
    """
    ours, theirs = ({level.name: level for level in side} for side in (student, teacher))
    for side, levels in (("student", ours), ("teacher", theirs)):
        for name in wanted:
            if name not in levels:
                raise ValueError(
                    f"{key} names '{name}', which the {side} does not output; "
                    f"it outputs {', '.join(levels)}"
                )
    if len(set(wanted)) != len(wanted):
        raise ValueError(f"{key} must name each level once; got {', '.join(wanted)}")
    names = list(wanted) or [name for name in ours if name in theirs]
    if not names:
        raise ValueError(
            "student and teacher must have a pyramid level in common; the student outputs "
            f"{_described(student)}, the teacher {_described(teacher)}"
        )
    for name in names:
        if ours[name].stride != theirs[name].stride:
            raise ValueError(
                f"level '{name}' must have one stride on both sides; got {ours[name].stride} in "
                f"the student and {theirs[name].stride} in the teacher"
            )
    return sorted(names, key=lambda name: ours[name].stride or 0)


def pair_from_coarsest(
    student: Sequence[Level], teacher: Sequence[Level]
) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
    """Pair levels from the coarsest on.

    Finer levels that only one network has are left out, and so is a pooled vector, a coarsest level
    of one cell, where the other network has none.

    Args:
        student: levels with their sizes, from high to low resolution.
        teacher: levels with their sizes, from high to low resolution.

    Returns:
        As many levels of each.

    Raises:
        ValueError: nothing is left.
    """
    is_pooled = [side[-1].size == (1, 1) for side in (student, teacher)]
    kept = [
        list(side[:-1]) if pooled and not all(is_pooled) else list(side)
        for side, pooled in zip((student, teacher), is_pooled, strict=True)
    ]
    count = min(map(len, kept))
    if count == 0:
        raise ValueError(
            f"both networks must have levels; the student outputs {_described(student)}, "
            f"the teacher {_described(teacher)}"
        )
    return tuple(kept[0][-count:]), tuple(kept[1][-count:])


def _described(levels: Sequence[Level]) -> str:
    return ", ".join(
        f"{level.name} ({f'stride {level.stride}' if level.stride else level.size}, "
        f"{level.channels} channels)"
        for level in levels
    )
