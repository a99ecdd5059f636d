"""Runs that differ in nothing but their seed, as one group; and all their values as one table."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reviewkd_det.report.runs import Run

__all__ = ["Groups", "group_runs", "name_teacher", "tidy_values"]

Groups = dict[str, list[Run]]  # by the name in the report; all whole or all interrupted


def group_runs(runs: Sequence[Run]) -> Groups:
    """Join runs that differ in nothing but seed and output folder, in the order given.

    A path into another run's output folder stands for that run, so that students of several seeds
    are one group where their teachers are.

    Raises:
        ValueError: a folder is given twice.
    """
    folders = [run.folder.resolve() for run in runs]
    for index, folder in enumerate(folders):
        if folder in folders[:index]:
            raise ValueError(f"a run must be given once; got '{runs[index].folder}' twice")
    labels = [0] * len(runs)
    for _ in runs:  # a teacher may have had a teacher
        outputs = dict(zip(map(_output, runs), labels, strict=True))
        keys = [_without_seed(run, outputs) for run in runs]
        labels = [keys.index(key) for key in keys]
    members = [[run for run, x in zip(runs, labels, strict=True) if x == label]
               for label in dict.fromkeys(labels)]  # fmt: skip
    return dict(zip(_names(members), members, strict=True))


def name_teacher(run: Run, groups: Groups) -> str:
    """Its teacher's name in the report, else the end of its path; empty for a plain run."""
    for name, members in groups.items():
        if run.teacher and any(_path(run.teacher).startswith(_output(x) + os.sep) for x in members):
            return name
    return "/".join(Path(run.teacher).parts[-2:])


def tidy_values(groups: Groups) -> pd.DataFrame:
    """Every value of every run: a row for each, with run, group, seed, unit, step, key, value."""
    frames = [
        pd.DataFrame.from_dict(run.history, orient="index")
        .rename_axis("step")
        .reset_index()
        .melt("step", var_name="key")
        .dropna()
        .assign(run=str(run.folder), group=name, seed=run.seed, unit=run.kind.unit)
        for name, members in groups.items()
        for run in members
    ]
    columns = ["run", "group", "seed", "unit", "step", "key", "value"]
    return pd.concat(frames, ignore_index=True)[columns].astype({"value": float})


def _without_seed(run: Run, outputs: dict[str, int]) -> tuple[Any, ...]:
    own = (run.kind.folder, run.kind.seed)
    rest = {key: _referred(x, outputs) for key, x in run.config.items() if key not in own}
    return run.kind, run.is_finished, rest


def _referred(value: Any, outputs: dict[str, int]) -> Any:
    """A path into a run's output folder with the run's label in place of the folder."""
    if isinstance(value, str) and os.sep in value:
        path = _path(value)
        for output, label in outputs.items():
            if path.startswith(output + os.sep):
                return label, path.removeprefix(output)
    return value


def _output(run: Run) -> str:
    return _path(run.config.get(run.kind.folder, run.folder))


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
