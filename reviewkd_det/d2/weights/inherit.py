"""Starting where the teacher ends: parts of the student initialised with the teacher's weights."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

__all__ = ["inherit", "inherited_names"]


@torch.no_grad()
def inherit(
    student: nn.Module,
    teacher_state: Mapping[str, Tensor],
    parts: Sequence[str],
    key: str = "MODEL.DISTILL.INHERIT",
) -> set[str]:
    """Copy the teacher's weights of these parts where names and shapes agree, and log what was.

    Args:
        student: the detector that takes them.
        teacher_state: the teacher detector's state dict.
        parts: names of modules, such as `proposal_generator` or `backbone.fpn_*`.
        key: config key that names the parts, for error sentences.

    Returns:
        The names of the weights that were copied.

    Raises:
        ValueError: a part is not in the student, or nothing of it fits.
    """
    state, copied = student.state_dict(), set()
    for part in parts:
        wanted = inherited_names(state, [part])
        if not wanted:
            raise ValueError(f"{key} must name parts of the student; got '{part}'")
        fitting = [
            name
            for name in wanted
            if name in teacher_state and teacher_state[name].shape == state[name].shape
        ]
        if not fitting:
            raise ValueError(
                f"{key} must name parts that fit; got '{part}', of which no weight has the "
                "teacher's name and shape, the first being "
                f"{_compared(wanted[0], state, teacher_state)}"
            )
        for name in fitting:
            state[name].copy_(teacher_state[name])
        copied |= set(fitting)
        left = [_compared(n, state, teacher_state) for n in wanted if n not in fitting]
        logging.getLogger(__name__).info(
            "Inherited %d of %d weights of %s from the teacher%s",
            len(fitting),
            len(wanted),
            part,
            f"; left out: {', '.join(left)}" if left else "",
        )
    return copied


def inherited_names(names: Iterable[str], parts: Sequence[str]) -> list[str]:
    """Those names of a student's state dict that belong to the parts."""
    return [
        name
        for name in names
        if any(fnmatchcase(name, f"{part}.*") for part in parts)
        and not name.endswith("num_batches_tracked")
    ]


def _compared(name: str, state: Mapping[str, Tensor], teacher_state: Mapping[str, Tensor]) -> str:
    theirs = tuple(teacher_state[name].shape) if name in teacher_state else "absent"
    return f"{name} {tuple(state[name].shape)} (teacher: {theirs})"
