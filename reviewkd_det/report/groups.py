"""Runs that differ in nothing but their seed, as one."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from reviewkd_det.report.runs import Run

__all__ = ["Group", "grouped", "spread", "teacher_name"]


@dataclass(frozen=True)
class Group:
    """Runs of one config and several seeds, in the order given; all whole or all interrupted.

    Args:
        name: as the report calls them.
        runs: at least one.
    """

    name: str
    runs: list[Run]

    @property
    def first(self) -> Run:
        """The run that stands for what is the same in all."""
        return self.runs[0]

    def values(self, value: Callable[[Run], Any]) -> list[Any]:
        """What is known of a value of each run."""
        return [x for x in map(value, self.runs) if x is not None]

    def series(self, key: str) -> dict[int, list[float]]:
        """A value by step, of every run, at the steps where all have it."""
        each = [run.series(key) for run in self.runs]
        return {step: [x[step] for x in each] for step in each[0] if all(step in x for x in each)}

    def spread(self, value: Callable[[Run], float | None], digits: int) -> str:
        """The mean and standard deviation of a value, as text; empty where it is not known."""
        values = self.values(value)
        return spread(values, f",.{digits}f") if values else ""


def spread(values: Sequence[float], form: str) -> str:
    """The mean of at least one value, and the standard deviation of several, as text."""
    text = f"{mean(values):{form}}"
    return f"{text} ± {stdev(values):{form}}" if len(values) > 1 else text


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Join runs that differ in nothing but seed and output folder.

    A path into another run's output folder stands for that run, so that students of several seeds
    are one group where their teachers are.

    Raises:
        ValueError: a folder is given twice.
    """
    folders = [run.folder.resolve() for run in runs]
    for index, folder in enumerate(folders):
        if folder in folders[:index]:
            raise ValueError(f"a run must be given once; got '{runs[index].folder}' twice")
    outputs = [_path(run.config.get(run.kind.folder, run.folder)) for run in runs]
    labels = [0] * len(runs)
    for _ in runs:  # a teacher may have had a teacher
        keys = [_without_seed(run, outputs, labels) for run in runs]
        labels = [keys.index(key) for key in keys]
    members = [[run for run, x in zip(runs, labels, strict=True) if x == label]
               for label in dict.fromkeys(labels)]  # fmt: skip
    return [Group(name, group) for name, group in zip(_names(members), members, strict=True)]


def teacher_name(run: Run, groups: Iterable[Group]) -> str:
    """Its teacher as the report calls it, else the end of its path; empty in a plain run."""
    for group in groups:
        outputs = [_path(x.config.get(x.kind.folder, x.folder)) for x in group.runs]
        if run.teacher and any(_path(run.teacher).startswith(x + os.sep) for x in outputs):
            return group.name
    return "/".join(Path(run.teacher).parts[-2:])


def _without_seed(run: Run, outputs: list[str], labels: list[int]) -> tuple[Any, ...]:
    own = {run.kind.folder, run.kind.seed}
    rest = {key: _referred(x, outputs, labels) for key, x in run.config.items() if key not in own}
    return run.kind, run.is_finished, rest


def _referred(value: Any, outputs: list[str], labels: list[int]) -> Any:
    """A path into a run's output folder with the run's label in place of the folder."""
    if isinstance(value, str) and os.sep in value:
        path = _path(value)
        for output, label in zip(outputs, labels, strict=True):
            if path.startswith(output + os.sep):
                return label, path.removeprefix(output)
    return value


def _path(value: object) -> str:
    return os.path.abspath(str(value))


def _names(members: list[list[Run]]) -> list[str]:
    """What the runs of a group share of their names, or as much of a path as tells it apart."""
    names = [_common_name([run.name for run in group]) for group in members]
    paths = [group[0].folder for group in members]
    for longer in ([f"{path.parent.name}/{path.name}" for path in paths], list(map(str, paths))):
        names = [x if names.count(x) == 1 else longer[i] for i, x in enumerate(names)]
    return names


def _common_name(names: list[str]) -> str:
    """What names share once a number at the end, of the seed, is left out; else the first."""
    bases = {re.sub(r"[\W_]*(seed)?[\W_]*\d+$", "", name) for name in names}
    is_same = len(bases) == 1 and len(set(names)) > 1
    return (is_same and bases.pop()) or names[0]
