"""Which levels of a student and its teacher are compared."""

from collections.abc import Sequence

from fvcore.common.config import CfgNode
from torch import nn

from classification.reading.taps import TappedModel
from reviewkd_det.common.tracing.stages import find_taps
from reviewkd_det.core import Level, pair_from_coarsest

__all__ = ["choose_taps", "describe_levels"]

Names = tuple[str, ...]
BOTH = "DISTILL.STUDENT_TAPS and TEACHER_TAPS"


def choose_taps(
    cfg: CfgNode, student: nn.Module, teacher: nn.Module, *, activation: str = ""
) -> tuple[Names, Names]:
    """Choose the nodes that methods on levels compare: those named, or those found.

    Args:
        cfg: config of the run.
        student: the student.
        teacher: network that the student learns from.
        activation: "before" or "after" where the methods mean maps so, whatever
            DISTILL.STUDENT_ACTIVATION and TEACHER_ACTIVATION say.

    Returns:
        The student's and the teacher's names, as many, from high to low resolution.

    Raises:
        ValueError: names are given for one network alone or not as many for both, or nothing is
            found.
    """
    settings = cfg.DISTILL
    named = tuple(settings.STUDENT_TAPS), tuple(settings.TEACHER_TAPS)
    if any(named):
        if len(named[0]) != len(named[1]):
            rule = "be as many" if all(named) else "be given together"
            raise ValueError(f"{BOTH} must {rule}; got {named[0]} and {named[1]}")
        return named
    sides = [
        _find_levels(model, size, (activation or own) == "before", settings.POOLED)
        for model, size, own in (
            (student, cfg.INPUT.SIZE, settings.STUDENT_ACTIVATION),
            (teacher, cfg.TEACHER.SIZE or cfg.INPUT.SIZE, settings.TEACHER_ACTIVATION),
        )
    ]
    ours, theirs = pair_from_coarsest(*sides)
    return tuple(level.name for level in ours), tuple(level.name for level in theirs)


def describe_levels(student: Sequence[Level], teacher: Sequence[Level]) -> str:
    """The pairs of levels with their shapes, in a line."""
    pairs = [
        f"{_describe(ours)} <- {_describe(theirs)}"
        for ours, theirs in zip(student, teacher, strict=True)
    ]
    return ", ".join(pairs)


def _find_levels(
    model: nn.Module, image_size: int, before_activation: bool, pooled: bool
) -> tuple[Level, ...]:
    names = find_taps(model, image_size, before_activation=before_activation, pooled=pooled)
    return TappedModel(model, names).find_levels(image_size)


def _describe(level: Level) -> str:
    return f"{level.name} {'x'.join(map(str, (level.channels, *(level.size or ()))))}"
